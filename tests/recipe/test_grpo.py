"""The rules about `grpo`, what it takes from the rest of the recipe, and what it adds to the plan."""

import pytest

from medllm.recipe import read_recipe
from medllm.recipe.dependencies import lora_of, stages_of, uses
from medllm.recipe.estimate import plan
from medllm.recipe.settings import Grpo
from tests.refusals import refused

RECIPE = """
name: tiny
namespace: clinic
base: ./base
cutoff: 2017-12-31
exams:
  mock: {source: ./mock, first: 2018-02-10}
corpus: {data: ./texts, held_out: [mock]}
cpt: {lora: {r: 8, lora_alpha: 16}, max_steps: 2}
preferences: {model: cpt, data: {source: ./past, exam: own}}
rpo: {model: cpt, rpo_alpha: 10, max_steps: 2}
grpo: {model: rpo, data: {source: ./past, exam: own}, questions: 40, num_train_epochs: 2}
merge: {model: grpo}
evaluate: {models: {base: base, final: grpo}, benchmarks: [mock], shots: 0}
"""


@pytest.fixture
def recipe(tmp_path):
    for name in ("base", "texts", "past", "mock"):
        (tmp_path / name).mkdir()
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE, "utf-8")
    return path


def test_grpo_comes_before_the_merge_and_takes_cutoff_and_held_out_exams_from_the_recipe(recipe):
    read = read_recipe(recipe)
    assert stages_of(read)[-3:] == ("grpo", "merge", "evaluate")
    assert (read.grpo.held_out, str(read.grpo.cutoff)) == (("mock",), "2017-12-31")
    assert [(use.place, use.source) for use in uses(read, "grpo")] == [
        *(("grpo.model", "rpo"), ("grpo.data[0]", "./past"), ("grpo.held_out", "mock"), ("base", "base")),
    ]
    assert lora_of(read, "grpo") == read.cpt.lora, "without `lora` the adapter below is trained further"


@pytest.mark.parametrize(
    ("place", "value", "code"),
    [
        ("total_batch_size", 12, "recipe.grpo-batch"),
        ("rewards", {"answer": 0, "form": 0, "length": 0, "loop": 0, "language": 0}, "recipe.grpo-no-reward"),
        ("max_length", 512, "recipe.grpo-no-room"),
        ("soft_punish_cache", 600, "recipe.grpo-no-room"),
        ("accelerate", "fsdp2", "recipe.grpo-not-divisible"),
        ("vllm_server_base_url", "http://gpu:8000", "recipe.vllm-without-address"),
        ("prompt", "think", "recipe.think-needs-chat"),
        ("held_out", [], "recipe.exam-not-held-out"),
        ("cutoff", "2019-01-01", "recipe.cutoff-too-late"),
        ("model", "merge", "recipe.later-stage"),
    ],
)
def test_what_cannot_be_trained_is_refused_at_its_key(recipe, place, value, code):
    with refused(code):
        read_recipe(recipe, {f"grpo.{place}": value})


def test_a_full_model_is_refused_where_it_would_be_trained(recipe):
    with refused("recipe.faults", "[recipe.grpo-without-adapter]", "[recipe.no-adapter-to-merge]"):
        read_recipe(recipe, {"grpo.model": "base"})


def test_vllm_needs_a_gpu_and_its_server_an_address(recipe):
    with refused("recipe.vllm-needs-gpu", "grpo.use_vllm"):
        read_recipe(recipe, {"grpo.use_vllm": True, "grpo.run_on": "cpu"})
    with refused("recipe.vllm-without-address", "grpo.vllm_mode"):
        read_recipe(recipe, {"grpo.use_vllm": True, "grpo.vllm_mode": "server"})


def test_evaluations_while_it_trains_are_refused(recipe):
    with refused("recipe.grpo-evaluation", "grpo.eval_strategy"):
        read_recipe(recipe, {"grpo.eval_strategy": "epoch"})


def test_the_plan_counts_the_completions(recipe):
    (step,) = [step for step in plan(read_recipe(recipe)).steps if step.stage == "grpo"]
    # 40 questions, twice, 8 completions of each, 512 tokens each
    assert "writes 640 completions, at most 0.3 million tokens" in step.notes
    (step,) = [s for s in plan(read_recipe(recipe, {"grpo.questions": None})).steps if s.stage == "grpo"]
    assert "writes 8 completions of each question and epoch, at most 512 tokens each" in step.notes


def test_the_address_and_the_memory_of_vllm_change_no_digest():
    from medllm.recipe.base import settings_for_digest

    one = Grpo(model="rpo", data=["./past"], use_vllm=True, vllm_mode="server", vllm_server_base_url="http://a:1")
    other = one.model_copy(update={"vllm_server_base_url": "http://b:2", "vllm_gpu_memory_utilization": 0.5})
    assert settings_for_digest(one) == settings_for_digest(other)
    assert settings_for_digest(one) != settings_for_digest(one.model_copy(update={"temperature": 0.9}))
