"""`--on slurm` with a real Slurm of one node and of two: stages made, jobs followed, failures told."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from medllm.errors import LaunchError
from medllm.generation.engine.local import LocalGenerator
from medllm.generation.types import Request
from medllm.hub import connect
from medllm.launch.local import launch as here
from medllm.launch.slurm import TEMPLATE, TRIES, launch
from medllm.pipeline import BuildContext, make_plan, run
from medllm.recipe import read_recipe, with_overrides
from tests import slurm, tiny
from tests.generation.fake_vllm import write_fake_vllm
from tests.launch.test_jobs import lay_out_real_corpus
from tests.pipeline.whole import lay_out
from tests.refusals import refused

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(slurm.missing()), reason=f"no Slurm here ({', '.join(slurm.missing())}): {slurm.INSTALL}"),
]


@pytest.fixture
def bench(request, tmp_path, tmp_path_factory, monkeypatch):
    with (
        slurm.cluster(tmp_path_factory.mktemp("slurm"), getattr(request, "param", 1)) as environment,
        connect(str(tmp_path / "hub"), "clinic") as hub,
    ):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield BuildContext(hub, tmp_path / "runs", lambda text: None)


def test_a_job_that_fails_is_reported_and_the_same_command_then_makes_the_stage(tmp_path, bench, monkeypatch):
    lay_out_real_corpus(tmp_path)
    texts = tmp_path / "texts"
    texts.rename(tmp_path / "elsewhere")
    texts.mkdir()
    plan = make_plan(read_recipe(tmp_path / "toy.yaml"), bench.hub, ("corpus",))
    with refused("launch.job-failed", "corpus", "code 1", "medllm: "):
        run(plan, bench, launch, lambda plan: None)
    monkeypatch.setenv("SBATCH_PARTITION", "nowhere")
    with refused("launch.sbatch-refused", "code 1", "invalid partition"):
        run(plan, bench, launch, lambda plan: None)
    monkeypatch.delenv("SBATCH_PARTITION")
    texts.rmdir()
    (tmp_path / "elsewhere").rename(texts)
    plan = make_plan(read_recipe(tmp_path / "toy.yaml"), bench.hub, ("corpus",))
    made = run(plan, bench, launch, lambda plan: None)["corpus"]
    assert bench.hub.provenance(made).digest == plan.items[0].digest
    scripts = "".join(path.read_text() for path in (tmp_path / "runs").rglob("*.sbatch"))
    assert scripts and bench.hub.token not in scripts


def test_a_run_that_is_stopped_leaves_its_job_and_the_same_command_follows_it(tmp_path, bench):
    lay_out_real_corpus(tmp_path)
    plan = make_plan(read_recipe(tmp_path / "toy.yaml"), bench.hub, ("corpus",))
    messages = []

    def stop(text: str) -> None:
        messages.append(text)
        if "submitted as job" in text:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises((LaunchError, KeyboardInterrupt)):
        run(plan, replace(bench, say=stop), launch, lambda plan: None)
    made = run(plan, replace(bench, say=messages.append), launch, lambda plan: None)["corpus"]
    assert bench.hub.provenance(made).digest == plan.items[0].digest
    assert sum("submitted as job" in text for text in messages) == 1


@pytest.mark.long
@pytest.mark.parametrize("bench", [2], indirect=True)
def test_a_training_on_two_nodes_learns_what_one_process_learns(tmp_path, bench):
    lay_out(tmp_path)
    recipe = read_recipe(tmp_path / "tiny.yaml")
    messages = []
    bench = replace(bench, say=messages.append)
    run(make_plan(recipe, bench.hub, ("corpus",)), bench, here, lambda plan: None)
    two = with_overrides(recipe, {"slurm": {"nodes": 2, "cpus": 1, "mem": "8G"}})
    plan = make_plan(two, bench.hub, ("cpt",))
    made = run(plan, bench, launch, lambda plan: None)["cpt"]
    scripts = [path.read_text() for path in (tmp_path / "runs").rglob("cpt-*.sbatch")]
    assert len(scripts) == 1
    assert "#SBATCH --nodes=2" in scripts[0]
    one = with_overrides(recipe, {"name": "alone"})
    run(make_plan(one, bench.hub, ("corpus", "cpt")), bench, here, lambda plan: None)
    alone = make_plan(one, bench.hub, ("cpt",)).items[-1].standing.artifact
    losses = [
        [json.loads(line)["loss"] for line in log.read_text().splitlines() if "loss" in json.loads(line)]
        for log in (bench.hub.pull(artifact) / "training" / "log.jsonl" for artifact in (made, alone))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    met = [re.search(r"node (\d of 2) \((node\d)\)", text) for text in messages]
    assert sorted(found.groups() for found in met if found) == [("1 of 2", "node0"), ("2 of 2", "node1")]


@pytest.mark.long
def test_an_evaluation_starts_its_own_vllm_beside_it_on_the_node_and_leaves_none_behind(tmp_path, bench, monkeypatch):
    lay_out(tmp_path)
    notes = tmp_path / "notes"
    notes.touch()
    program = write_fake_vllm(tmp_path / "program")
    for name, value in (("MEDLLM_VLLM", str(program)), ("FAKE_NOTES", str(notes)), ("FAKE_FAULT", "")):
        monkeypatch.setenv(name, value)
    changes = {"evaluate.engine": "vllm", "evaluate.models": {"base": "base"}}
    recipe = with_overrides(read_recipe(tmp_path / "tiny.yaml"), changes)
    made = run(make_plan(recipe, bench.hub, ("evaluate",)), bench, launch, lambda plan: None)["evaluate"]
    noted = [json.loads(line) for line in notes.read_text("utf-8").splitlines()]
    servers = [about["pid"] for kind, about in noted if kind == "start"]
    assert len(servers) == 1 and not Path(f"/proc/{servers[0]}").exists()
    replies = json.loads((bench.hub.pull(made) / "facts.json").read_text("utf-8"))["replies"]
    assert sum(kind == "asked" for kind, _ in noted) >= replies == 20


ANSWER = """
import sys
from pathlib import Path
from medllm.generation.distributed import SpreadGenerator
from medllm.generation.reply_log import generate_resumable
from tests.launch.test_real_slurm import requests
maker = SpreadGenerator(Path(sys.argv[1]), {}, [None], dtype="float32", batch_size=2)
print(len(list(generate_resumable(maker, requests(), Path(sys.argv[2])))), "replies")
"""


def requests():
    return [Request(key=str(at), text=text, max_new_tokens=8) for at, text in enumerate(tiny.sentences(12, seed=3))]


@pytest.mark.long
def test_two_nodes_answer_with_the_replies_of_one_process(tmp_path, tmp_path_factory):
    base = tiny.make_base(tmp_path / "base")
    (tmp_path / "answer.py").write_text(ANSWER, "utf-8")
    messages = "import os, sys; sys.stderr.write(f\"begun on {os.environ['SLURMD_NODENAME']}\\n\")"
    (tmp_path / "sitecustomize.py").write_text(messages, "utf-8")
    words = f"exec {sys.executable} {tmp_path}/answer.py {base} {tmp_path}/replies.jsonl"
    script = f"#!/bin/bash\nexport MEDLLM_NODES=2 PYTHONPATH={tmp_path}:{Path(__file__).parents[2]}\n{words}\n"
    (tmp_path / "job").write_text(script, "utf-8")
    with slurm.cluster(tmp_path_factory.mktemp("slurm"), 2) as environment:
        asked = ["sbatch", "--wait", "--nodes=2", "--ntasks-per-node=1", f"--output={tmp_path}/log", f"{tmp_path}/job"]
        done = subprocess.run(asked, env={**os.environ, **environment}, check=False, timeout=300)
        printed = (tmp_path / "log").read_text("utf-8")
    assert done.returncode == 0 and "12 replies" in printed, printed
    assert [printed.count(f"begun on node{at}") for at in (0, 1)] == [2, 1], "the run and a process, and a process"
    kept = {(one["key"], one["text"]) for one in map(json.loads, (tmp_path / "replies.jsonl").read_text().splitlines())}
    alone = LocalGenerator(base, dtype="float32", batch_size=2).generate(requests())
    assert kept == {(one.key, one.text) for one in alone}


STAGE = """#!/bin/bash
trap 'echo saved; exit 3' USR1
echo at work
for _ in $(seq 600); do sleep 0.1; done
"""


def test_a_job_that_is_signalled_to_save_is_queued_again_by_itself(tmp_path, tmp_path_factory):
    (tmp_path / "stage").write_text(STAGE)
    (tmp_path / "stage").chmod(0o755)
    options = [f"--output={tmp_path / 'log'}", "--open-mode=append", "--requeue", "--signal=B:USR1@600"]
    words = {"setting": "", "python": tmp_path / "stage", "recipe": "r", "stage": "cpt", "hub": "h", "work": "w"}
    lines = "\n".join(f"#SBATCH {option}" for option in options)
    (tmp_path / "job").write_text(TEMPLATE.format(**words, options=lines, tries=TRIES, code=tmp_path / "code"))
    with slurm.cluster(tmp_path_factory.mktemp("slurm")) as environment:

        def ask(*command: str) -> str:
            there = {**os.environ, **environment}
            return subprocess.run(command, env=there, capture_output=True, text=True, check=True).stdout.strip()

        def wait_for(text: str) -> None:
            until = time.monotonic() + 60
            while not ((tmp_path / "log").exists() and text in (tmp_path / "log").read_text()):
                assert time.monotonic() < until
                time.sleep(0.2)

        job = ask("sbatch", "--parsable", str(tmp_path / "job"))
        wait_for("at work")
        ask("scancel", "--batch", "--signal=USR1", job)  # as Slurm does before the limit
        wait_for("the job is queued again")
        printed = ask("scontrol", "show", "job", job)
        assert "Restarts=1" in printed
        assert "JobState=PENDING" in printed or "JobState=COMPLETING" in printed
        assert not (tmp_path / "code").exists()
