"""The merge's memory: some rows of a tensor, however large the tensor is."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from medllm.weights.checkpoint import Checkpoint, open_tensors, workers, write_tensors
from tests import tiny
from tests.refusals import refused


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is told in kilobytes on Linux only")
def test_memory_holds_a_slice_and_not_a_tensor(tmp_path):
    base = tiny.make_base(tmp_path / "base", vocab_size=400_000, hidden_size=128, tied=True)
    adapter = tiny.make_adapter(tmp_path / "a", base, target_modules=["q_proj"])
    largest = max(tensor.size for tensor in Checkpoint(base).tensors.values())
    script = (
        "import resource, sys; from pathlib import Path; import numpy, torch\n"
        "from medllm.weights.adapter import Adapter; from medllm.weights.checkpoint import Checkpoint\n"
        "from medllm.weights.merge import merge\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "base, adapter, out = map(Path, sys.argv[1:])\n"
        "merge(Checkpoint(base), [Adapter(adapter)], out, dtype=None, say=print)\n"
        "print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))\n"
    )
    words = [sys.executable, "-c", script, str(base), str(adapter), str(tmp_path / "out")]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=600)
    assert largest > 200e6 and int(done.stdout.split()[-1]) < largest / 2


def test_slices_are_written_in_order_whichever_is_made_first(tmp_path):
    def late(number):
        time.sleep(0.02 * (5 - number))
        return torch.full((3,), number, dtype=torch.bfloat16)

    with workers() as pool, write_tensors(tmp_path / "file") as sink:
        sink.append(b"begin")
        for number in range(5):
            sink.append(pool.submit(late, number))
    numbers = torch.arange(5, dtype=torch.bfloat16).repeat_interleave(3)
    assert (tmp_path / "file").read_bytes() == b"begin" + numbers.view(torch.uint8).numpy().tobytes()


def test_a_fault_while_a_slice_is_made_is_reported(tmp_path):
    def broken():
        raise ValueError("no such row")

    with pytest.raises(ValueError, match="no such row"), workers() as pool, write_tensors(tmp_path / "file") as sink:
        sink.append(pool.submit(broken))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
def test_a_disk_that_is_full_is_reported():
    with pytest.raises(OSError, match="No space left on device"), write_tensors(Path("/dev/full")) as sink:
        sink.append(bytes(2**20))


def test_the_threads_of_whoever_merges_are_as_many_as_before():
    before = torch.get_num_threads()
    with workers() as pool:
        assert pool.submit(torch.get_num_threads).result() == 1
    assert torch.get_num_threads() == before


def test_a_shard_that_shrinks_while_it_is_read_is_no_tensor(tmp_path):
    base = Checkpoint(tiny.make_base(tmp_path / "base"))
    shard, tensors = base.shards[0], sorted(base.tensors.values(), key=lambda tensor: tensor.begin)
    with open_tensors(shard) as source:
        with shard.open("r+b") as file:
            file.truncate(shard.stat().st_size - 8)
        with refused("weights.cut-off", shard):
            list(source.parts(tensors[-1]))
