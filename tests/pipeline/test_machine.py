"""A card names the machine: the GPUs that were used, by name, and the processor only where there is none."""

import os

import pytest

from medllm.pipeline import machine
from medllm.pipeline.machine import gpu_names, hardware


@pytest.fixture
def two_gpus(monkeypatch, tmp_path):
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H200 (UUID: a)'\necho 'GPU 1: NVIDIA L4 (UUID: b)'\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize(("visible", "count"), [("", 0), ("-1", 0), ("3", 1), ("0,1,2,3", 4), ("GPU-a,GPU-b", 2)])
def test_only_the_gpus_that_are_made_visible_count(monkeypatch, visible, count):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert len(gpu_names()) == count


def test_gpus_are_named_as_the_driver_names_them(two_gpus, monkeypatch):
    assert hardware() == "1 x NVIDIA H200, 1 x NVIDIA L4"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert hardware() == "1 x NVIDIA L4"


def test_without_a_gpu_the_processor_is_named_and_its_cores(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(machine, "CPU_INFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text("processor : 0\nmodel name\t: Chip 9000 @ 3 GHz\nprocessor : 1\n")
    cores = len(os.sched_getaffinity(0))
    assert hardware() == f"Chip 9000 @ 3 GHz, {cores} core{'s' if cores > 1 else ''}, no GPU"
