"""A stage through Slurm: the script is readable, holds no token, runs the stage, and its failure is told."""

import os
import re
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from medllm.errors import RecipeError
from medllm.hub import connect
from medllm.launch import slurm
from medllm.launch.slurm import launch, memory, write_script
from medllm.pipeline import BuildContext, make_plan, run
from medllm.recipe import read_recipe, with_overrides
from tests.launch.test_jobs import lay_out_real_corpus
from tests.pipeline import toy
from tests.refusals import refused

# Slurm itself needs a cluster's daemons; this sbatch runs a script at once, and the queue holds what a file says.
SBATCH = """#!/bin/bash
script="${@: -1}"
log=$(sed -n 's/^#SBATCH --output=//p' "$script")
bash "$script" >"$log" 2>&1
echo 7
"""
SQUEUE = """#!/bin/bash
[[ "$*" == *--name=* ]] && cat "$(dirname "$0")/queue" 2>/dev/null
exit 0
"""


@pytest.fixture
def bench(tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("squeue", SQUEUE), ("scontrol", "#!/bin/bash\n")):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    with connect(str(tmp_path / "hub"), "clinic") as hub:
        yield BuildContext(hub, tmp_path / "runs", lambda text: None)


@pytest.mark.slow
def test_the_stage_is_made_by_the_script_and_is_on_the_hub(tmp_path, bench):
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
def test_a_job_that_fails_is_reported_with_its_last_words(tmp_path, bench):
    toy.lay_out(tmp_path)
    (tmp_path / "texts" / "a.txt").unlink()
    plan = make_plan(read_recipe(tmp_path / "toy.yaml"), bench.hub, ("corpus",))
    with refused("launch.job-failed", "corpus", "code 1", "medllm: "):
        run(plan, bench, launch, lambda plan: None)


def test_without_slurm_it_says_where_to_run(tmp_path, bench, monkeypatch):
    toy.lay_out(tmp_path)
    monkeypatch.setenv("PATH", str(Path("/nowhere")))
    plan = make_plan(read_recipe(tmp_path / "toy.yaml"), bench.hub, ("corpus",))
    with refused("launch.no-sbatch", "--on slurm"):
        launch(plan, plan.items[0], {}, bench)


def options_of(tmp_path, bench, stage="cpt", **changes):
    """The script's `#SBATCH` lines for a toy recipe."""
    toy.lay_out(tmp_path)
    recipe = with_overrides(read_recipe(tmp_path / "toy.yaml"), changes)
    plan = make_plan(recipe, bench.hub, (stage,))
    item = next(one for one in plan.items if one.stage == stage)
    lines = write_script(plan, item, bench).read_text().splitlines()
    return [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")], "\n".join(lines)


def test_nothing_is_left_to_the_sites_defaults_of_one_core_and_little_memory(tmp_path, bench):
    options, _ = options_of(tmp_path, bench)
    assert {"--nodes=1", "--ntasks-per-node=1", "--cpus-per-task=4", "--mem=16G", "--requeue"} <= set(options)
    assert {"--time=2-00:00:00", "--signal=B:USR1@600", "--open-mode=append"} <= set(options)
    assert re.fullmatch(r"--job-name=medllm-cpt-[0-9a-f]{12}", options[0])


def test_the_recipe_says_what_is_asked_for_in_the_words_of_the_site(tmp_path, bench):
    asked = {"nodes": 2, "cpus": 12, "mem": "200G", "gres": "gpu:h100-sxm:4", "partition": "gpu,long"}
    asked |= {"time": "12:00:00", "extra": ["--account=med"]}
    options, text = options_of(tmp_path, bench, **{"cpt.run_on": "h100x4", "slurm": asked})
    assert {"--nodes=2", "--cpus-per-task=12", "--mem=200G", "--gres=gpu:h100-sxm:4", "--partition=gpu,long"} <= set(
        options
    )
    assert {"--time=12:00:00", "--account=med"} <= set(options)
    assert not any("--gpus" in option for option in options)
    assert "\nMEDLLM_NODES=2 " in text


def test_several_nodes_are_for_trainings_and_answers_and_each_gets_the_gpus_of_run_on(tmp_path, bench):
    changes = {"cpt.run_on": "a100x4", "slurm.nodes": 2}
    assert {"--nodes=2", "--gpus-per-node=a100:4"} <= set(options_of(tmp_path, bench, **changes)[0])
    assert "--nodes=1" in options_of(tmp_path, bench, stage="corpus", **changes)[0]
    assert "--nodes=2" in options_of(tmp_path, bench, stage="preferences", **changes)[0]
    served = {**changes, "preferences.engine": "http://127.0.0.1:8000/v1"}
    assert "--nodes=1" in options_of(tmp_path, bench, stage="preferences", **served)[0]


def test_the_memory_asked_for_is_what_loading_the_base_takes(tmp_path, bench):
    toy.lay_out(tmp_path)
    recipe = read_recipe(tmp_path / "toy.yaml")
    plan = make_plan(recipe, bench.hub, ("cpt",))
    item = next(one for one in plan.items if one.stage == "cpt")
    large = replace(plan, recipe=recipe.model_copy(update={"base": "Qwen/Qwen2.5-72B@main"}))
    assert memory(large, item) == "182G"  # 72.7 billion numbers in two bytes, and a quarter
    corpus = next(one for one in plan.items if one.stage == "corpus")
    assert memory(large, corpus) == "16G"


@pytest.mark.parametrize("slurm", [{"extra": ["rm -rf x"]}, {"extra": ["--a\nrm"]}, {"mem": "lots"}, {"nodes": 0},
                                   {"partition": "a b"}, {"time": "soon"}, {"gpus": 4}])  # fmt: skip
def test_what_sbatch_could_not_read_is_reported_before_anything_is_sent(tmp_path, slurm):
    toy.lay_out(tmp_path)
    with pytest.raises(RecipeError) as caught:
        with_overrides(read_recipe(tmp_path / "toy.yaml"), {"slurm": slurm})
    assert "slurm." in str(caught.value)


def test_the_same_command_follows_the_job_that_is_queued_and_sends_no_second_one(tmp_path, bench):
    toy.lay_out(tmp_path)
    messages = []
    plan = make_plan(read_recipe(tmp_path / "toy.yaml"), bench.hub, ("corpus",))
    script = write_script(plan, plan.items[0], bench)
    script.with_suffix(".log").write_text("read 3 texts\nhalf a line")
    script.with_suffix(".code").write_text("0\n")
    (tmp_path / "bin" / "queue").write_text("41 RUNNING\n")
    (tmp_path / "bin" / "sbatch").write_text("#!/bin/bash\nexit 9\n")
    launch(plan, plan.items[0], {}, replace(bench, say=messages.append))
    assert messages[0] == "corpus: following job 41, which an earlier run submitted"
    assert messages[1:] == ["corpus | read 3 texts", "corpus | half a line"]


def test_a_job_that_ended_without_a_word_says_what_may_have_ended_it(tmp_path, bench):
    toy.lay_out(tmp_path)
    plan = make_plan(read_recipe(tmp_path / "toy.yaml"), bench.hub, ("corpus",))
    (tmp_path / "bin" / "sbatch").write_text("#!/bin/bash\necho 8\n")
    (tmp_path / "bin" / "scontrol").write_text("#!/bin/bash\necho '   JobState=OUT_OF_MEMORY Reason=OutOfMemory'\n")
    with refused("launch.job-ended-early", "corpus", "job 8", "OUT_OF_MEMORY"):
        launch(plan, plan.items[0], {}, bench)


def test_what_sbatch_refuses_is_reported_in_its_words(tmp_path, bench):
    toy.lay_out(tmp_path)
    plan = make_plan(read_recipe(tmp_path / "toy.yaml"), bench.hub, ("corpus",))
    (tmp_path / "bin" / "sbatch").write_text("#!/bin/bash\necho 'sbatch: error: invalid partition' >&2\nexit 1\n")
    with refused("launch.sbatch-refused", "corpus", "code 1", "invalid partition"):
        launch(plan, plan.items[0], {}, bench)
    assert not list(tmp_path.glob(".slurm-*"))


# A stage that saves at the signal, as a training does, and then ends with an error.
STAGE = """#!/bin/bash
trap 'echo saved; exit 3' USR1
echo at work
for _ in $(seq 100); do sleep 0.1; done
"""


@pytest.mark.parametrize(("restarts", "again"), [("0", True), ("20", False)])
def test_at_the_time_limit_the_stage_saves_and_the_job_is_queued_again_a_bounded_number_of_times(
    tmp_path, restarts, again
):
    for name, text in (("stage", STAGE), ("scontrol", f'#!/bin/bash\necho "$@" > {tmp_path}/asked\n')):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    words = {"options": "", "setting": "", "python": tmp_path / "stage", "recipe": "r", "stage": "cpt", "hub": "h"}
    text = slurm.TEMPLATE.format(**words, work="w", tries=slurm.TRIES, code=tmp_path / "code")
    (tmp_path / "job").write_text(text)
    there = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "5", "SLURM_RESTART_COUNT": restarts}
    job = subprocess.Popen(["bash", tmp_path / "job"], env=there, stdout=subprocess.PIPE, text=True)
    assert job.stdout.readline() == "at work\n"
    job.send_signal(signal.SIGUSR1)
    with job.stdout:
        assert "saved" in job.stdout.read()
    assert job.wait() == (0 if again else 3)
    assert (tmp_path / "asked").exists() == again
    assert (tmp_path / "code").exists() != again
