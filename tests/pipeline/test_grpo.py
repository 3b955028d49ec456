"""A recipe with `grpo`, from folders to the Hub: names, provenance, card, trace, merge and evaluation."""

import pyarrow.parquet as pq
import pytest

from medllm.hub import connect
from medllm.launch import local
from medllm.pipeline import BuildContext, make_plan, run
from medllm.pipeline.facts import describe_facts, facts_of
from medllm.pipeline.trace import trace_of
from medllm.recipe import read_recipe
from tests.pipeline import whole

pytestmark = pytest.mark.long

GRPO = """grpo:
  {model: rpo, data: {source: ./past, exam: own}, prompt: plain, shots: 0, max_steps: 2, total_batch_size: 4,
   num_generations: 2, max_completion_length: 8, max_length: 512, dtype: float32, warmup_ratio: 0,
   constant_reward_steps: 10, logging_steps: 1}
merge: {model: grpo,"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grpo")
    whole.lay_out(folder)
    path = folder / "tiny.yaml"
    text = path.read_text("utf-8")
    for old, new in {"merge: {model: rpo,": GRPO, "final: rpo}": "final: grpo}"}.items():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text, "utf-8")
    with connect(str(folder / "hub"), "clinic") as hub:
        plan = make_plan(read_recipe(path), hub)
        yield (
            hub,
            run(plan, BuildContext(hub, folder / "runs", lambda text: None), local.launch, lambda plan: None),
            plan,
        )


def test_the_merged_model_comes_from_grpo_and_that_from_rpo_and_past_questions(made):
    hub, _, plan = made
    steps = {step.source.repo_id: step for step in trace_of(hub, "clinic/tiny", None).back}
    assert {"clinic/tiny-grpo", "clinic/tiny-rpo", "clinic/tiny-cpt"} <= set(steps)
    made_of = {source.reference for source in steps["clinic/tiny-grpo"].provenance.inputs}
    assert made_of == {"rpo", "base", "./past", "world"}
    assert all(item.standing for item in plan.renewed(hub).items), "a second run would make nothing"


def test_the_card_shows_rewards_over_time_and_completions(made):
    hub, outputs, _ = made
    for stage in ("grpo", "merge"):
        card = hub.file(outputs[stage], "README.md").read_text("utf-8")
        assert "## Rewards" in card and "GRPO learnt from 8 answers" in card
        assert "`answer` times 1" in card and "- Update 1, `own/" in card
        assert sum(line.startswith(("| 1 |", "| 2 |")) for line in card.splitlines()) == 2
    assert "Group Relative Policy Optimization" in hub.file(outputs["grpo"], "README.md").read_text("utf-8")
    assert "## Rewards" not in hub.file(outputs["rpo"], "README.md").read_text("utf-8")
    line = describe_facts("grpo", facts_of(hub, outputs["grpo"]))
    assert line.startswith("trained on 8 completions to 12 questions in 2 updates: reward ")


def test_a_past_question_is_followed_into_the_training_and_the_final_model_is_evaluated(made):
    hub, outputs, _ = made
    files = {row.file for row in trace_of(hub, "clinic/tiny-grpo", "p3").rows}
    assert "questions/train-00000.parquet" in files
    records = hub.pull(outputs["evaluate"]) / "records" / "final.parquet"
    assert pq.read_table(records).num_rows > 0
