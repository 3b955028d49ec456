"""The quickstart with a handful of updates: every stage is made, nothing is learnt; that is for the full run."""

import pytest

from medllm.cli.quickstart import recipe_file
from medllm.hub import connect
from medllm.miniature.corpora import PLANTED_LEAKS
from medllm.pipeline.build import read_facts
from medllm.recipe import read_recipe, stages_of
from medllm.recipe.base import KINDS
from tests.test_quickstart import run

STAGES = stages_of(read_recipe(recipe_file()))

FEW = (
    "cpt.num_train_epochs=null", "cpt.max_steps=4", "preferences.questions=8", "rpo.num_train_epochs=null",
    "rpo.max_steps=2", "rpo.logging_steps=1", "rounds.evaluate.limit=8", "evaluate.limit=8",
)  # fmt: skip


@pytest.mark.long
@pytest.mark.slow
def test_a_few_steps_go_from_an_empty_folder_to_the_table_and_leave_every_stage_on_the_hub(tmp_path):
    folder = tmp_path / "start"
    done = run(folder, FEW)
    assert done.returncode == 0, done.stderr
    assert [line for line in (done.stdout + done.stderr).splitlines() if "Warning" in line or "Traceback" in line] == []
    assert all(f"{stage}: done in" in done.stderr for stage in STAGES)
    rows = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ") and "(" in line]
    assert rows[:4] == ["base", "cpt", "cpt-rpo", "final"]
    with connect(str(folder / "hub"), "quickstart") as hub:
        for stage in STAGES:
            name = "quickstart/medllm-mini" + ("" if stage == "merge" else f"-{stage}")
            artifact = hub.resolve(name, KINDS[stage])
            assert hub.provenance(artifact).stage == stage
            facts = read_facts(hub.pull(artifact))
            if stage == "corpus":
                assert facts["audit"]["documents_to_drop"] == PLANTED_LEAKS
            if stage in ("cpt", "rpo"):
                assert facts["steps"] == {"cpt": 4, "rpo": 2}[stage]
