"""The recipe for 72B, its whole plan from CPT to evaluation, on a CPU: two blocks, its vocabulary and its settings."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from medllm.exam.record import read_records
from medllm.recipe import read_recipe
from medllm.recipe.model_shapes import KNOWN
from medllm.stages import cpt, evaluate, merge, preferences, rpo
from tests import tiny

RECIPES = Path(__file__).parents[2] / "recipes"
SHAPE = KNOWN["Qwen/Qwen2.5-72B"]
TWO = {"accelerate": str(RECIPES / "accelerate" / "cpu-2.yaml")}
SET = {
    "corpus.data": ["./texts"],
    "cpt.num_train_epochs": None,
    "cpt.max_steps": 3,
    "cpt.total_batch_size": 4,
    "cpt.max_length": 64,
    "cpt.save_steps": 2,
    "preferences.data": [{"source": "./past", "exam": "own"}],
    "preferences.max_new_tokens": 24,
    "preferences.num_processes": 2,
    "rpo.num_train_epochs": None,
    "rpo.max_steps": 2,
    "rpo.total_batch_size": 2,
    "rpo.max_length": 512,
    "merge.parity_questions": 2,
    "evaluate.models": {"base": "base", "cpt": "cpt", "final": "rpo"},
    "evaluate.max_new_tokens": {"plain": 4, "explain": 8},
    "evaluate.num_processes": 2,
}
"""What differs from the recipe as it is shipped: data, lengths, and the hosted model that no test can ask."""


def make_narrow_72b(folder):
    """A base with the proportions of the 72B, its heads and its vocabulary, that writes an answer now and then."""
    from transformers import AutoModelForCausalLM

    heads = {"num_attention_heads": SHAPE.heads // 8, "num_key_value_heads": SHAPE.kv_heads // 8, "head_dim": 8}
    wide = {"hidden_size": 64, "intermediate_size": 232, "vocab_size": SHAPE.vocabulary}
    tiny.make_base(folder, tied=SHAPE.tied, **heads, **wide)
    tokenizer = tiny.make_tokenizer()
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        # One direction of the stream is nearly the same for every text; along it the head says which tokens there are.
        model.get_input_embeddings().weight[:, -1] = 6.0
        head = model.get_output_embeddings().weight
        head[:, -1] = -20.0
        head[: len(tokenizer), -1] = 0.0
        head[tokenizer("\n答え: abcde")["input_ids"], -1] = 0.8
    model.save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.usefixtures("watchdog")
def test_the_plan_for_72b_runs_from_cpt_to_evaluation_on_two_processes(tmp_path):
    shutil.copy(RECIPES / "preferred-medllm-qwen-72b.yaml", tmp_path)
    tiny.make_corpus(tmp_path / "texts")
    tiny.make_exam(tmp_path / "past", 10)
    recipe = read_recipe(tmp_path / "preferred-medllm-qwen-72b.yaml", SET)
    stages = (recipe.cpt, recipe.preferences, recipe.rpo, recipe.merge, recipe.evaluate)
    assert all(stages) and recipe.cpt.quantization == recipe.rpo.quantization == "nf4"
    sources = {
        "base": make_narrow_72b(tmp_path / "base"),
        "corpus": tmp_path / "texts",
        "./past": tmp_path / "past",
        "own": tiny.make_exam(tmp_path / "own", 3, first="2019-02-09"),
    }
    cpt.make(recipe.cpt.model_copy(update=TWO), sources, tmp_path / "cpt")
    sources["cpt"] = tmp_path / "cpt"
    asked = recipe.preferences.model_copy(update={"cutoff": recipe.cutoff, "held_out": ()})
    preferences.make(asked, sources, tmp_path / "preferences")
    sources["preferences"] = tmp_path / "preferences"
    rpo.make(recipe.rpo.model_copy(update=TWO), sources, tmp_path / "rpo")
    sources["rpo"] = tmp_path / "rpo"
    merge.make(recipe.merge, sources, tmp_path / "merge")
    own = {"benchmarks": ("own",), "shots": {"own": 0}, "years": None}
    evaluate.make(recipe.evaluate.model_copy(update=own), sources, tmp_path / "results")

    facts = {name: json.loads((tmp_path / name / "facts.json").read_text("utf-8")) for name in ("cpt", "rpo", "merge")}
    assert facts["cpt"]["steps"] == 3 and facts["rpo"]["steps"] == 2
    certificate = facts["merge"]["certificate"]
    assert certificate["verdict"] == "passed" and certificate["numbers"] == "bfloat16"
    assert "top1 agreement (merged against adapter on the 4-bit base)" in certificate
    assert {(r.model, r.prompt) for r in read_records(tmp_path / "results")} == {
        (model, prompt) for model in ("base", "cpt", "final") for prompt in ("plain", "explain")
    }
