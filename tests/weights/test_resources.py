"""A GPU that cannot hold a base is named before the base is loaded, by whoever would load it."""

import pytest

from medllm.generation.factory import make_generators
from medllm.generation.types import Request
from medllm.weights.resources import VisibleGpu
from tests import tiny
from tests.refusals import refused


@pytest.fixture
def base(tmp_path):
    return tiny.make_base(tmp_path / "base")


def ask(monkeypatch, base, gigabytes, num_processes=None):
    """Ask a model as on a machine with GPUs of these sizes."""
    gpus = [VisibleGpu("NVIDIA L4", int(size * 1e9)) for size in gigabytes]
    names = [str(number % len(gpus)) for number in range(num_processes or len(gpus))]
    monkeypatch.setattr("medllm.generation.distributed.devices", lambda wanted: names)
    monkeypatch.setattr("medllm.weights.resources.visible_gpus", lambda: gpus)
    [(maker, model)] = make_generators({"tiny": "it"}, {"it": base}, num_processes=num_processes).values()
    return list(maker.generate([Request(key="1", text="a", model=model, max_new_tokens=2)]))


def test_a_stage_that_answers_names_the_gpu_that_cannot_hold_its_base(monkeypatch, base):
    # A CUDA context alone takes a gigabyte.
    with refused("weights.gpu-too-small", "base", "GPU 1 (NVIDIA L4)", "1 GB"):
        ask(monkeypatch, base, (24, 0.9))


def test_processes_that_share_a_gpu_each_need_their_copy_of_the_base(monkeypatch, base):
    with refused("weights.gpu-too-small", "GPU 0 (NVIDIA L4)", "2 times", "`num_processes`"):
        ask(monkeypatch, base, (1.5,), num_processes=2)


def test_a_gpu_that_is_large_enough_is_used(monkeypatch, base):
    assert ask(monkeypatch, base, (1.5,))[0].text is not None
