"""A recipe with rounds, from folders to the Hub: names, provenance, card, trace, status and ablation."""

from dataclasses import dataclass

import pytest

from medllm.hub import Artifact, Hub, connect
from medllm.launch import local
from medllm.pipeline import BuildContext, BuildPlan, make_plan, run
from medllm.pipeline.facts import describe_facts, facts_of
from medllm.pipeline.trace import trace_of
from medllm.recipe import read_recipe
from tests.pipeline import whole

pytestmark = pytest.mark.long


@dataclass
class Made:
    """A Hub with the recipe as it is, and with no round, and the plan of the second."""

    hub: Hub
    runs: list[dict[str, Artifact]]
    plan: BuildPlan


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rounds")
    whole.lay_out_rounds(folder)
    with connect(str(folder / "hub"), "clinic") as hub:
        runs = []
        for overrides in ({}, {"rounds.max_rounds": 0}):
            plan = make_plan(read_recipe(folder / "tiny.yaml", overrides), hub)
            bench = BuildContext(hub, folder / "runs", lambda text: None)
            runs.append(run(plan, bench, local.launch, lambda plan: None))
        yield Made(hub, runs, plan)


def test_the_merged_model_comes_from_the_rounds_and_these_from_rpo(made):
    hub = made.hub
    steps = {step.source.repo_id: step for step in trace_of(hub, "clinic/tiny", None).back}
    assert {"clinic/tiny-rounds", "clinic/tiny-rpo", "clinic/tiny-cpt"} <= set(steps)
    made_of = {source.reference for source in steps["clinic/tiny-rounds"].provenance.inputs}
    assert {"rpo", "base", "./past", "mock", "world"} <= made_of
    lines = list(trace_of(hub, "clinic/tiny", None).lines())
    (own,) = [line for line in lines if "rounds = clinic/tiny-rounds@" in line]
    assert own.endswith("no gain (mock, explain: +0.0 points, p 1.0000); the result is the model of round 1)")


def test_the_cards_hold_the_rounds_and_why_they_ended(made):
    hub, first = made.hub, made.runs[0]
    facts = facts_of(hub, first["rounds"])
    stop = describe_facts("rounds", facts)
    assert stop.startswith("kept 0 of 1 round, the last one shows no gain (mock, explain: +0.0 points, p 1.0000)")
    for stage in ("rounds", "merge"):
        card = hub.file(first[stage], "README.md").read_text("utf-8")
        assert "## Rounds" in card and "`mock`" in card
        assert f"because {facts['why']}" in card
        assert "| 2 | kept back: no gain | 10 |" in card
    assert "## Rounds" not in hub.file(first["cpt"], "README.md").read_text("utf-8")


def test_a_row_of_past_questions_is_followed_into_the_round_that_sampled_it(made):
    trace = trace_of(made.hub, "clinic/tiny-rounds", "p3")
    files = {(row.file, row.kept) for row in trace.rows}
    assert ("kept_back/samples/round-2.parquet", False) in files
    assert not any(kept for _, kept in files), "a round that is kept back is not learnt by the result"


def test_rounds_that_change_nothing_leave_the_merged_model_as_it_is(made):
    first, second = made.runs
    assert second["rounds"] != first["rounds"]
    assert second["merge"] == first["merge"], "equal content above: the model is not made again"
    assert all(item.standing for item in made.plan.renewed(made.hub).items)
