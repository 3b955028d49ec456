"""A stage through Slurm: the script is readable, holds no token, runs the stage, and its failure is told."""

import os
from pathlib import Path

import pytest

from medllm.errors import LaunchError
from medllm.hub import connect
from medllm.launch.slurm import launch, write_script
from medllm.pipeline import Bench, make_plan, run
from medllm.recipe import read_recipe, with_overrides
from tests.launch.test_jobs import lay_out_real_corpus
from tests.pipeline import toy

# Slurm itself needs a cluster's daemons; this sbatch does what `sbatch --wait` does with a script on one machine.
SBATCH = """#!/bin/bash
script="${@: -1}"
log=$(sed -n 's/^#SBATCH --output=//p' "$script")
bash "$script" >"$log" 2>&1
"""


@pytest.fixture
def bench(tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "sbatch").write_text(SBATCH)
    (folder / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    with connect(str(tmp_path / "hub"), "clinic") as hub:
        yield Bench(hub, tmp_path / "runs", lambda text: None)


@pytest.mark.slow
def test_the_stage_is_made_by_the_script_and_stands_on_the_hub(tmp_path, bench):
    lay_out_real_corpus(tmp_path)
    plan = make_plan(read_recipe(tmp_path / "toy.yaml"), bench.hub, ("corpus",))
    made = run(plan, bench, launch, lambda plan: None)["corpus"]
    assert bench.hub.provenance(made).digest == plan.items[0].digest
    assert not list(tmp_path.glob(".slurm-*"))


def test_the_script_asks_for_the_devices_of_the_recipe_and_holds_no_token(tmp_path, bench):
    toy.lay_out(tmp_path)
    recipe = with_overrides(read_recipe(tmp_path / "toy.yaml"), {"cpt.run_on": "a100x4"})
    text = write_script(plan := make_plan(recipe, bench.hub, ("cpt",)), plan.items[1], bench).read_text()
    assert "#SBATCH --gpus=a100:4\n" in text
    assert bench.hub.token not in text
    assert bench.hub.token[3:] not in text


@pytest.mark.slow
def test_a_job_that_fails_is_told_with_its_last_words(tmp_path, bench):
    toy.lay_out(tmp_path)
    (tmp_path / "texts" / "a.txt").unlink()
    plan = make_plan(read_recipe(tmp_path / "toy.yaml"), bench.hub, ("corpus",))
    with pytest.raises(LaunchError, match=r"corpus: the job ended with code 1. Its last words:\n(.|\n)*medllm: "):
        run(plan, bench, launch, lambda plan: None)


def test_without_slurm_it_says_where_to_run(tmp_path, bench, monkeypatch):
    toy.lay_out(tmp_path)
    monkeypatch.setenv("PATH", str(Path("/nowhere")))
    plan = make_plan(read_recipe(tmp_path / "toy.yaml"), bench.hub, ("corpus",))
    with pytest.raises(LaunchError, match="no `sbatch` here"):
        launch(plan, plan.items[0], {}, bench)
