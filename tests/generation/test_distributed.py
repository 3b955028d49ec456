"""Several processes answer with a model each: the replies of one process, none asked twice, and all end together."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medllm.generation import distributed
from medllm.generation.distributed import SpreadGenerator, devices, places_on
from medllm.generation.engine.attention import LEAST_TOKENS, CacheBudget
from medllm.generation.engine.batching import Batch
from medllm.generation.engine.local import LocalGenerator
from medllm.generation.factory import OnDemand, make_generators, processes_of
from medllm.generation.reply_log import generate_resumable
from medllm.generation.types import Request
from medllm.generation.worker import as_line, batch_of
from medllm.recipe.settings import Evaluate
from tests import tiny
from tests.refusals import refused

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("watchdog")]
OPTIONS = {"dtype": "float32", "batch_size": 2}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spread")
    base = tiny.make_base(folder / "base")
    return base, {
        "cpt": tiny.make_adapter(folder / "cpt", base),
        "rpo": tiny.make_adapter(folder / "rpo", base, seed=4),
    }


def requests(count=6, length=8):
    shots = "".join(tiny.sentences(3, seed=9))
    return [
        Request(
            key=f"{model} {number}",
            model=model,
            text=shots + text,
            shared=len(shots),
            max_new_tokens=length,
            temperature=float(number % 2),
            seed=number,
            stop=("\n問題",),
        )
        for number, text in enumerate(tiny.sentences(count, seed=3))
        for model in ("base", "cpt", "rpo")
    ]


def test_two_processes_give_the_replies_of_one_and_any_number_goes_on_after_a_stop(models, tmp_path):
    wanted = requests()
    one = LocalGenerator(*models, **OPTIONS)
    alone = {reply.key: reply for reply in one.generate(wanted)}
    path = tmp_path / "replies.jsonl"
    few = generate_resumable(one, wanted, path)
    first = [next(few) for _ in range(4)]
    few.close()
    two = generate_resumable(SpreadGenerator(*models, [None, None], **OPTIONS), wanted, path)
    more = [next(two) for _ in range(9)]
    on_disk = [json.loads(line)["key"] for line in path.read_text("utf-8").splitlines()]
    assert [reply.key for reply in more] == on_disk, "each reply is on the disk before the next is given"
    assert [reply.key for reply in first] == on_disk[:4], "and none of the first is asked again"
    two.close()
    assert {reply.key: reply for reply in generate_resumable(one, wanted, path)} == alone
    keys = [json.loads(line)["key"] for line in path.read_text("utf-8").splitlines()]
    assert len(keys) == len(set(keys)) == len(wanted)


@pytest.fixture
def started(monkeypatch):
    """The processes that a test starts."""
    found, begin = [], distributed.Process.__init__

    def noted(self, *args):
        begin(self, *args)
        found.append(self)

    monkeypatch.setattr(distributed.Process, "__init__", noted)
    return found


@pytest.mark.long
def test_when_one_process_dies_all_end_with_its_message(models, started):
    maker = SpreadGenerator(*models, [None, None], **OPTIONS)
    replies = maker.generate(requests(40, 200))
    next(replies)
    started[1].running.send_signal(signal.SIGKILL)
    with refused("generation.process-ended", "process 1 on the CPU", "signal 9"):
        list(replies)
    assert all(process.running.poll() is not None for process in started)


# What srun does with these words, on one machine.
SRUN = """#!/bin/bash
while [[ "$1" == --* ]]; do [[ "$1" == --relative=* ]] && export NODE="${1#--relative=}"; shift; done
exec "$@"
"""


@pytest.mark.long
def test_two_nodes_share_the_requests_and_give_the_replies_of_one_process(models, tmp_path, monkeypatch, started):
    (tmp_path / "srun").write_text(SRUN, "utf-8")
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("MEDLLM_NODES", "2")
    wanted = requests()
    path = tmp_path / "replies.jsonl"
    two = generate_resumable(SpreadGenerator(*models, [None], **OPTIONS), wanted, path)
    first = [next(two) for _ in range(3)]
    on = [Path(f"/proc/{process.running.pid}/environ").read_bytes().split(b"\0") for process in started]
    assert [b"NODE=1" in variables for variables in on] == [False, True]
    assert [json.loads(line)["key"] for line in path.read_text("utf-8").splitlines()] == [one.key for one in first]
    started[1].running.kill()
    with refused("generation.process-ended", "process 1 on the CPU of node 2", "signal 9"):
        list(two)
    assert all(process.running.poll() is not None for process in started)
    monkeypatch.delenv("MEDLLM_NODES")
    one = LocalGenerator(*models, **OPTIONS)
    assert {reply.key: reply for reply in generate_resumable(one, wanted, path)} == {
        r.key: r for r in one.generate(wanted)
    }


def test_other_nodes_have_the_same_devices_by_number():
    places = [(place.node, place.device) for place in places_on(2, ["GPU-aa", "GPU-bb", "GPU-aa"])]
    assert places == [(0, "GPU-aa"), (0, "GPU-bb"), (0, "GPU-aa"), (1, "0"), (1, "1"), (1, "0")]
    assert [str(place) for place in places_on(2, [None])] == ["the CPU", "the CPU of node 2"]


@pytest.mark.long
def test_a_process_that_hangs_is_found_and_all_end(models, monkeypatch, started):
    assert distributed.SILENT + distributed.BEAT + 2 * distributed.LOOK < 60, "found within a minute"
    monkeypatch.setattr(distributed, "SILENT", 15.0)
    replies = SpreadGenerator(*models, [None, None], **OPTIONS).generate(requests(40, 200))
    next(replies)
    started[1].running.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    with refused("generation.process-silent", "process 1 on the CPU", "15 seconds"):
        list(replies)
    # Its last sign of life is up to a beat older than the signal that stopped it.
    assert 14 - distributed.BEAT < time.monotonic() - began < 30
    assert all(process.running.poll() is not None for process in started)


# A large model as the one who waits sees it: computing for long while it loads, then slow in every layer. Or one that
# waits for something that does not come, before or after.
LARGE = """
import time
from medllm.generation import worker
begin = worker.Loading.__enter__
def begin_slowly(self):
    begin(self)
    from medllm.generation.engine import local
    load = local.load_base
    def slowly(*args, **options):
        until = time.monotonic() + 12
        while time.monotonic() < until:
            pass
        if {hang_when!r} == "loading":
            time.sleep(600)
        model = load(*args, **options)
        for layer in model.model.layers:
            layer.register_forward_pre_hook(lambda *_: time.sleep(600 if {hang_when!r} == "answering" else 0.4))
        return model
    local.load_base = slowly
worker.Loading.__enter__ = begin_slowly
worker.main()
"""


@pytest.mark.long
@pytest.mark.parametrize("hang_when", ["never", "loading", "answering"])
def test_a_process_that_loads_or_writes_for_long_is_left_alone_and_one_that_waits_is_not(
    models, monkeypatch, started, hang_when
):
    monkeypatch.setattr(distributed, "SILENT", 8.0)
    monkeypatch.setattr(distributed, "BEAT", 1.0)
    monkeypatch.setattr(distributed, "WORKER", [sys.executable, "-c", LARGE.format(hang_when=hang_when)])
    maker = SpreadGenerator(models[0], {}, [None], **OPTIONS)
    replies = maker.generate([Request(key="a", text="患者", max_new_tokens=16)])
    if hang_when == "never":
        [reply] = replies
        assert reply.completion_tokens * 2 * 0.4 > 8, "no word of it came for longer than the limit"
    else:
        with refused("generation.process-silent", "process 0 on the CPU", "8 seconds"):
            list(replies)
    assert started[0].running.poll() is not None


@pytest.mark.long
def test_a_model_that_a_process_cannot_load_is_reported_in_its_words(models, tmp_path):
    base = tiny.make_base(tmp_path / "base")
    maker = SpreadGenerator(base, {}, [None, None], **OPTIONS)
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with refused("weights.cut-off", weights):
        list(maker.generate([Request(key="a", text="患者")]))
    with refused("generation.unknown-model", "`final`", "base"):
        list(maker.generate([Request(key="a", text="患者", model="final")]))


@pytest.mark.long
@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT])
def test_the_processes_end_with_the_run_that_started_them(models, by):
    base = models[0]
    script = (
        "import sys; from pathlib import Path\n"
        "from medllm.generation.types import Request\n"
        "from medllm.generation.distributed import SpreadGenerator\n"
        "maker = SpreadGenerator(Path(sys.argv[1]), {}, [None, None], dtype='float32', batch_size=2)\n"
        "asked = [Request(key=str(n), text='患者' * n, max_new_tokens=400) for n in range(1, 60)]\n"
        "for reply in maker.generate(asked): print('reply', flush=True)\n"
    )
    words = [sys.executable, "-c", script, str(base)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, **pipes, start_new_session=True) as run:
        assert run.stdout.readline()
        theirs = _children(run.pid)
        assert len(theirs) == 2
        if by == signal.SIGINT:
            os.killpg(run.pid, by)  # as a terminal does, to all of them
            assert run.communicate()[1].count("Traceback") == 1, "only the run's own"
        else:
            run.kill()
    deadline = time.monotonic() + 20
    while any(map(_runs, theirs)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(_runs, theirs))


def _children(pid):
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8").split()]


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_batch_crosses_to_a_process_unchanged():
    request = Request(
        key="a", text="患者\n", messages=({"role": "user", "content": "x"},), stop=("\n", "終"), seed=2**47
    )
    batch = Batch((1, 2, 3), (request, request), ((4, 5), ()))
    assert batch_of(json.loads(as_line(batch))) == batch


def test_each_gpu_gets_a_process_and_more_processes_take_turns(monkeypatch):
    import torch

    assert devices(None) == [None] and devices(3) == [None] * 3
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert devices(None) == ["0", "1"] and devices(3) == ["0", "1", "0"] and devices(1) == ["0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-aa,GPU-bb")
    assert devices(None) == ["GPU-aa", "GPU-bb"]


def test_answering_takes_no_more_gpus_than_run_on_asks_for(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    common = {"models": {"base": "base"}, "benchmarks": ("own",)}
    for changed, count in (({"run_on": "a100x2"}, 2), ({}, None), ({"run_on": "a100x2", "num_processes": 3}, 3)):
        assert processes_of(Evaluate(**common, **changed)) == count
    assert processes_of(Evaluate(**common, run_on="a100x2", engine="http://127.0.0.1:1/v1")) is None


def test_models_are_loaded_when_they_are_asked_and_given_back(models):
    base, adapters = models
    sources = {"base": base, "rpo": adapters["rpo"]}
    made = make_generators({"base": "base", "final": "rpo"}, sources, dtype="float32")
    maker = made["final"][0]
    assert isinstance(maker, OnDemand) and maker is made["base"][0] and maker._loaded is None
    assert len(list(maker.generate([Request(key="a", text="患者", model="final", max_new_tokens=2)]))) == 1
    assert isinstance(maker._loaded, LocalGenerator)
    maker.release()
    assert maker._loaded is None


def test_what_is_kept_at_once_goes_by_the_memory_that_is_free(models, monkeypatch):
    from medllm.generation.engine import attention

    generator = LocalGenerator(*models, **OPTIONS)
    config = generator.model.config.get_text_config()
    each = 2 * 2 * 2 * 8 * 4  # keys and values, layers, heads, size, float32
    for free, sharing, tokens in ((each * 100_000, 1, 60_000), (each * 100_000, 2, 30_000), (1, 1, LEAST_TOKENS)):
        monkeypatch.setattr(attention, "memory_free", lambda free=free: free)
        assert CacheBudget.of(config, generator.model, sharing).tokens == tokens
    monkeypatch.setattr(attention, "memory_free", lambda: 2**50)
    assert CacheBudget.of(config, generator.model, 1).tokens == 65_536
    on_gpu = CacheBudget(tokens=10**6, on_cpu=False, scores=2e9, heads=64)
    assert on_gpu.tokens_read(300, 1800) == 4 * 300, "2 GB hold the scores of four prompts of 300 tokens after 1,500"
    assert on_gpu.tokens_read(10_000, 10_000) == 10_000, "one prompt is read in any case"
    assert os.environ.get("OMP_NUM_THREADS"), "the tests give each process one thread"
