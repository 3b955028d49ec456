"""Two runs of one stage do not collide, on one machine or on two; a card names the machine that made its stage."""

import multiprocessing
import os
import signal
import time

import pytest

from medllm.hub.errors import MovedError
from medllm.pipeline import build
from medllm.pipeline.build import BusyError, exclusive_lock, gpu_names, hardware
from tests.refusals import refused

PROCESSES = multiprocessing.get_context("forkserver")


def hold(folder, mouth):
    with exclusive_lock(folder, "clinic/toy-cpt"):
        mouth.send("held")
        mouth.recv()


def test_the_second_run_on_one_machine_names_the_first_and_a_killed_one_holds_nothing(tmp_path):
    ear, mouth = PROCESSES.Pipe()
    other = PROCESSES.Process(target=hold, args=(tmp_path, mouth))
    other.start()
    assert ear.recv() == "held"
    with (
        refused("stage.busy", "clinic/toy-cpt:", f"process {other.pid} on ", tmp_path, kind=BusyError),
        exclusive_lock(tmp_path, "clinic/toy-cpt"),
    ):
        pass
    other.kill()
    other.join()
    with exclusive_lock(tmp_path, "clinic/toy-cpt"):
        pass
    ear.close()
    mouth.close()


def test_a_place_where_no_folder_can_be_made_is_refused_with_what_to_do(tmp_path):
    (tmp_path / "a-file").write_text("")
    with (
        refused("stage.no-folder", tmp_path / "a-file" / "runs", "Not a directory", "--work"),
        exclusive_lock(tmp_path / "a-file" / "runs", "clinic/toy-cpt"),
    ):
        pass


def hold_and_fork(folder, mouth):
    with exclusive_lock(folder, "clinic/toy-corpus"):
        orphan = os.fork()
        if orphan == 0:
            time.sleep(600)  # as a library's helper does, which nobody tells that the run was killed
        mouth.send(orphan)
        mouth.recv()


def test_what_a_library_forked_does_not_hold_the_folder_of_a_run_that_was_killed(tmp_path):
    ear, mouth = PROCESSES.Pipe()
    run = PROCESSES.Process(target=hold_and_fork, args=(tmp_path, mouth))
    run.start()
    orphan = ear.recv()
    os.kill(run.pid, signal.SIGKILL)
    run.join()
    try:
        with exclusive_lock(tmp_path, "clinic/toy-corpus"):
            os.kill(orphan, 0)  # it is there still
    finally:
        os.kill(orphan, signal.SIGKILL)


def test_of_two_machines_the_first_to_push_wins_and_the_other_takes_its_result(workshop):
    def meanwhile(stage, part):
        if stage == "corpus" and len(workshop.worked) == 1:
            elsewhere = type(workshop)(workshop.folder, workshop.hub)
            elsewhere.runs = "elsewhere"
            winners.append(elsewhere.run(wanted=("corpus",))["corpus"])

    winners = []
    workshop.before_the_end = meanwhile
    assert workshop.run(wanted=("corpus",))["corpus"] == winners[0]


def test_of_two_recipes_for_one_repository_the_second_does_not_overwrite(workshop):
    def meanwhile(stage, part):
        if stage == "corpus" and len(workshop.worked) == 1:
            elsewhere = type(workshop)(workshop.folder, workshop.hub)
            elsewhere.runs = "elsewhere"
            elsewhere.run("corpus.min_chars=10", wanted=("corpus",))

    workshop.before_the_end = meanwhile
    with refused("hub.moved", "made-", kind=MovedError):
        workshop.run(wanted=("corpus",))


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
    monkeypatch.setattr(build, "CPU_INFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text("processor : 0\nmodel name\t: Chip 9000 @ 3 GHz\nprocessor : 1\n")
    cores = len(os.sched_getaffinity(0))
    assert hardware() == f"Chip 9000 @ 3 GHz, {cores} core{'s' if cores > 1 else ''}, no GPU"
