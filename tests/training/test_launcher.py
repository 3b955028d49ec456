"""Processes of a training on one machine and on two: they meet, end together, and get the signal to save."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from medllm.recipe.settings import Cpt, Lora
from medllm.stages import cpt
from medllm.training.launcher import command
from tests import tiny
from tests.refusals import refused

pytestmark = pytest.mark.usefixtures("watchdog")
# What srun does with these words, on one machine: a task for each node, each with its number; one that dies ends all.
SRUN = """#!/bin/bash
nodes=1
while [[ "$1" == --* ]]; do [[ "$1" == --nodes=* ]] && nodes="${1#--nodes=}"; shift; done
exec 3<&0
for ((at = 0; at < nodes; at++)); do SLURM_NODEID=$at "$@" <&3 & done
code=0
for ((at = 0; at < nodes; at++)); do wait -n || { code=$?; kill $(jobs -p) 2>/dev/null; }; done
exit $code
"""
DYING = """
import os
if os.environ.get("RANK") == "1":
    import medllm.stages.cpt as stage

    def die(*_):
        raise OSError(28, "No space left on device")

    stage.make = die
"""
SAVING = """
import os, signal, sys, time
from medllm.training import launcher
def save(number, frame):
    print("saved after", signal.Signals(number).name, flush=True)
    sys.exit(9)
for number in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(number, save)
launcher.enlist()
print("at work", flush=True)
time.sleep(60)
"""
RUN = """
import os, sys
from medllm.training.launcher import run
sys.exit(run([sys.executable, "-c", sys.argv[1]], {**os.environ, "MEDLLM_LAUNCHED": sys.argv[2]}))
"""
SETTINGS = Cpt(
    lora=Lora(r=4, lora_alpha=8), max_length=64, max_steps=2, total_batch_size=4, dtype="float32", learning_rate=1e-3,
    gradient_checkpointing=False, logging_steps=1, report_to=(),
)  # fmt: skip


def config(folder: Path, machines: int) -> str:
    """Two processes on the CPU, on one machine or on two."""
    values = {"compute_environment": "LOCAL_MACHINE", "distributed_type": "MULTI_CPU", "num_processes": 2}
    (folder / "two.yaml").write_text(yaml.safe_dump(values | {"num_machines": machines, "use_cpu": True}))
    return str(folder / "two.yaml")


@pytest.fixture
def sources(tmp_path) -> dict[str, Path]:
    """A base and a corpus."""
    base = tiny.make_base(tmp_path / "base")
    return {"base": base, "corpus": tiny.make_corpus(tmp_path / "corpus", 12, longest=60)}


@pytest.fixture
def srun(tmp_path, monkeypatch) -> None:
    """Two nodes on loopback."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "srun").write_text(SRUN)
    (tmp_path / "bin" / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("socket.gethostname", lambda: "127.0.0.1")
    monkeypatch.setenv("SLURM_JOB_ID", str(os.getpid()))


def losses(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "training" / "log.jsonl").read_text("utf-8").splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.long
@pytest.mark.slow
def test_two_nodes_that_meet_over_loopback_learn_what_one_process_learns(tmp_path, sources, srun):
    cpt.make(SETTINGS, sources, tmp_path / "one")
    cpt.make(SETTINGS.model_copy(update={"accelerate": config(tmp_path, 2)}), sources, tmp_path / "two")
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    assert not list(tmp_path.glob("two.*s*n*"))


@pytest.mark.slow
@pytest.mark.parametrize("machines", [1, pytest.param(2, marks=pytest.mark.long)])
def test_one_process_that_dies_ends_all_and_its_message_is_shown(tmp_path, sources, srun, monkeypatch, machines):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(DYING)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'site'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    settings = SETTINGS.model_copy(update={"accelerate": config(tmp_path, machines)})
    began = time.monotonic()
    with refused("training.process-failed", "cpt: process 1: OSError", "No space left on device"):
        cpt.make(settings, sources, tmp_path / "out")
    assert time.monotonic() - began < 120
    assert not (tmp_path / "out.processes").exists()


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_to_the_run_lets_the_processes_save_and_waits_for_them(tmp_path, number):
    words = [sys.executable, "-c", RUN, SAVING, str(tmp_path)]
    run = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert run.stdout.readline() == "at work\n"
    run.send_signal(number)
    with run.stdout:
        assert run.stdout.read() == f"saved after {number.name}\n"
    assert run.wait() == 9


def test_ctrl_c_ends_the_processes_too(tmp_path):
    words = [sys.executable, "-c", RUN, "print('at work', flush=True); import time; time.sleep(60)", str(tmp_path)]
    run = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True)
    assert run.stdout.readline() == "at work\n"
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does
    with run.stdout:
        assert run.stdout.read() == ""
    assert run.wait() != 0


def test_the_nodes_of_a_job_meet_at_one_port_and_those_of_another_at_another(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    first, again = (command(Path(config(tmp_path, 2)), "given", "out") for _ in range(2))
    assert first == again
    assert first[:4] == ["srun", "--nodes=2", "--ntasks=2", "--ntasks-per-node=1"]
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    assert command(Path(config(tmp_path, 2)), "given", "out") != first
