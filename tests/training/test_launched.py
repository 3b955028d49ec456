"""Processes that a training starts end with it and with each other, and the one that failed first is heard."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from medllm.errors import TrainingError
from medllm.stages import cpt
from medllm.training.checkpointing import last_checkpoint
from medllm.training.launcher import first_fault, of_another, was_stopped
from tests import tiny
from tests.refusals import refused

pytestmark = pytest.mark.usefixtures("watchdog")
CHILD = """
import time
from medllm.processes import exit_with_stdin
exit_with_stdin()
print("at work", flush=True)
time.sleep(600)
"""
RUN = """
import os, sys
from medllm.training.launcher import run
sys.exit(run([sys.executable, "-c", sys.argv[1]], {**os.environ, "MEDLLM_LAUNCHED": "."}))
"""
CONFIG = str(Path(__file__).parents[2] / "recipes" / "accelerate" / "cpu-2.yaml")
SETTINGS = tiny.CPT.model_copy(update={"accelerate": CONFIG, "max_steps": 40})


def test_a_killed_run_leaves_no_process_at_work():
    run = subprocess.Popen([sys.executable, "-c", RUN, CHILD], stdout=subprocess.PIPE, text=True)
    assert run.stdout.readline() == "at work\n"
    run.kill()
    run.wait()
    with run.stdout:
        assert run.stdout.read() == ""  # returns when the last process that could still write there has ended


def test_a_run_that_lives_lets_them_work_and_takes_their_code():
    done = subprocess.run([sys.executable, "-c", RUN, "raise SystemExit(7)"], check=False)
    assert done.returncode == 7


@pytest.mark.parametrize(
    ("left", "printed"),
    [
        (
            {"fault-5.2-0": "later", "fault-5.1-1": "the disk is full", "lost-5.0-2": "gloo"},
            "process 1: the disk is full",
        ),
        ({"lost-5.1-0": "gloo: reset"}, "a process was killed by a signal, as the kernel does when memory is full"),
        ({"fault-5.0-0": "no room", "fault-5.1-1": "no room"}, "no room"),
        ({"stopped-5.0-0": "stopped on request", "stopped-5.1-1": "stopped on request"}, "stopped on request"),
        ({}, None),
    ],
)
def test_of_several_processes_the_one_that_failed_first_is_heard(tmp_path, left, printed):
    for name, text in left.items():
        (tmp_path / name).write_text(text, "utf-8")
    assert first_fault(tmp_path) == printed


@pytest.mark.parametrize(
    ("left", "stopped"),
    [
        (["stopped-5.0-0", "lost-5.1-1"], True),
        (["stopped-5.0-0", "fault-5.1-1"], False),
        (["fault-5.0-0"], False),
        ([], False),
    ],
)
def test_a_run_was_stopped_when_no_process_failed_for_another_reason(tmp_path, left, stopped):
    for name in left:
        (tmp_path / name).write_text("x", "utf-8")
    assert was_stopped(tmp_path) == stopped


def test_a_lost_connection_is_another_processs_fault_and_a_full_memory_is_ones_own():
    assert of_another(RuntimeError("[../gloo/transport/tcp/pair.cc:546] Connection closed by peer [127.0.0.1]:1"))
    assert not of_another(RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert not of_another(TrainingError("stage.disk-full", "the disk of out.part is full"))


@pytest.fixture
def sources(tmp_path):
    return tiny.make_sources(tmp_path / "sources")


def in_every_process(tmp_path, monkeypatch, code):
    """Run code at the start of every Python that is started from here on; `rank` is that of a training process."""
    folder = tmp_path / "site"
    folder.mkdir()
    begin = "import os\nrank = os.environ.get('RANK') if 'MEDLLM_LAUNCHED' in os.environ else None\n"
    (folder / "sitecustomize.py").write_text(begin + textwrap.dedent(code), "utf-8")
    kept = os.environ.get("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{kept}")


@pytest.mark.slow
@pytest.mark.long
def test_a_full_disk_under_one_process_ends_all_with_its_message_and_the_run_goes_on_later(
    sources, tmp_path, monkeypatch
):
    settings = SETTINGS.model_copy(update={"max_steps": 4})
    with monkeypatch.context() as patched:
        in_every_process(
            tmp_path,
            patched,
            """
            if rank == "1":
                import resource
                resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
            """,
        )
        began = time.monotonic()
        with refused("training.process-failed", "cpt: process 1: cpt:", tmp_path / "out.part") as caught:
            cpt.make(settings, sources, tmp_path / "out")
        assert time.monotonic() - began < 240
    assert "Traceback" not in str(caught.value)
    cpt.make(settings, sources, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "facts.json").read_text("utf-8"))["steps"] == 4


@pytest.mark.slow
@pytest.mark.long
def test_a_process_that_the_kernel_kills_ends_all_and_is_named(sources, tmp_path, monkeypatch):
    in_every_process(
        tmp_path,
        monkeypatch,
        f"""
        def die():
            import pathlib, signal, time
            while not pathlib.Path({str(tmp_path / "out.part" / "checkpoints" / "checkpoint-2")!r}).exists():
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        if rank == "1":
            import threading
            threading.Thread(target=die, daemon=True).start()
        """,
    )
    with refused("training.process-failed", "cpt", "signal"):
        cpt.make(SETTINGS, sources, tmp_path / "out")


ASKED = """
import sys
from pathlib import Path
from medllm.errors import TrainingError
from medllm.stages import cpt
from tests.training import test_launched as here
root = Path(sys.argv[1])
sources = {name: root / "sources" / name for name in ("base", "corpus", "preferences", "cpt")}
settings = here.SETTINGS.model_copy(update={"max_steps": 2000, "save_steps": 1999})
if sys.argv[2] == "alone":
    settings = settings.model_copy(update={"accelerate": None})
try:
    cpt.make(settings, sources, root / "out")
except KeyboardInterrupt:
    sys.exit("interrupted")
except TrainingError as error:
    print(error, file=sys.stderr)
    sys.exit(error.code)
"""


def begun(tmp_path, where, updates=3):
    """A training in a process of its own that has taken some updates."""
    run = subprocess.Popen(
        [sys.executable, "-c", ASKED, str(tmp_path), where],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    log = tmp_path / "out.part" / "training" / "log.jsonl"
    while not log.is_file() or log.read_text("utf-8").count("\n") < updates:
        assert run.poll() is None, run.stderr.read()
        time.sleep(0.05)
    return run


@pytest.mark.long
@pytest.mark.slow
def test_ctrl_c_ends_a_training_with_all_its_processes(sources, tmp_path):
    run = begun(tmp_path, "two processes")
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does
    printed = run.communicate()[1]
    assert run.returncode == 1 and printed.splitlines()[-1] == "interrupted", printed
    with pytest.raises(ProcessLookupError):
        os.killpg(run.pid, 0)
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.processes").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "where"),
    [
        pytest.param(signal.SIGTERM, "two processes", marks=pytest.mark.long),
        pytest.param(signal.SIGUSR1, "two processes", marks=pytest.mark.long),
        (signal.SIGTERM, "alone"),
        pytest.param(signal.SIGUSR1, "alone", marks=pytest.mark.long),
    ],
)
def test_a_scheduler_that_ends_a_run_gets_a_checkpoint_first(sources, tmp_path, where, number):
    run = begun(tmp_path, where)
    checkpoints = tmp_path / "out.part" / "checkpoints"
    assert not list(checkpoints.glob("checkpoint-*"))
    run.send_signal(number)
    printed = run.communicate()[1]
    assert run.returncode == 1 and printed.splitlines()[-1] == "training.stopped-on-request", printed
    [left] = checkpoints.glob("checkpoint-*")
    assert last_checkpoint(checkpoints) == left and f"update {left.name.rsplit('-', 1)[1]}," in printed
