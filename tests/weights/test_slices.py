"""The merge's memory: some rows of a tensor, however large the tensor is."""

import subprocess
import sys

import pytest

from medllm.weights.checkpoint import Checkpoint
from tests import tiny


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
