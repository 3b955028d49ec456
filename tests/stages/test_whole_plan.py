"""The recipe for 72B, its whole plan from CPT to evaluation, on a CPU: two blocks, its vocabulary and its settings."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from medllm.exam.record import read_records
from medllm.recipe import read_recipe
from medllm.recipe.hardware import KNOWN
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


SHORTER = {
    "cpt.max_steps": 2,
    "cpt.total_batch_size": 4,
    "cpt.per_device_train_batch_size": 1,
    "cpt.max_length": 32,
    "cpt.save_steps": 1,
    "preferences.max_new_tokens": 12,
    "preferences.samples": 128,
    "preferences.shots": 1,
    "preferences.num_processes": 1,
    "rpo.max_steps": 1,
    "rpo.warmup_ratio": 0.0,
    "rpo.per_device_train_batch_size": 1,
    "rpo.save_steps": 1,
    "merge.parity_questions": 1,
    "evaluate.max_new_tokens": {"plain": 2, "explain": 4},
    "evaluate.num_processes": 1,
}
"""At the true width a token takes 6 GFLOP forward, half a second of a core without instructions for bfloat16."""

PRODUCTS = '''
import torch

STEP = 4096
library = torch.library.Library("aten", "IMPL")


def pieces(size):
    """Divide a dimension."""
    return [slice(start, start + STEP) for start in range(0, size, STEP)]


def multiply(left, right):
    """Multiply two matrices; in bfloat16 by float32, a small part of the second at a time."""
    if left.dtype != torch.bfloat16 or right.stride(0) == 1:  # a transposed matrix is quick in bfloat16
        return torch.addmm(left.new_zeros(1), left, right)
    product = torch.zeros(left.shape[0], right.shape[1])
    for rows in pieces(right.shape[0]):
        part = left[:, rows].float()
        for columns in pieces(right.shape[1]):
            product[:, columns].addmm_(part, right[rows, columns].float())
    return product.bfloat16()


def multiply_batch(left, right):
    """Multiply the matrices of two batches, pair by pair."""
    return torch.stack([multiply(*pair) for pair in zip(left, right)])


library.impl("mm", multiply, "CPU")
library.impl("bmm", multiply_batch, "CPU")
'''
"""What each process of the true width runs first on a processor without instructions for bfloat16. There torch computes
a product with a matrix that is not transposed, as in every backward pass, a hundred times slower in bfloat16 than in
float32 (measured for 32 x 8192 by 8192 x 8192: 0.14 and 14.6 GFLOPS; with the instructions 117 and 51)."""


def make_narrow_72b(folder: Path) -> Path:
    """A base with the proportions of the 72B, its heads and its vocabulary, that writes an answer now and then."""
    heads = {"num_attention_heads": SHAPE.heads // 8, "num_key_value_heads": SHAPE.kv_heads // 8, "head_dim": 8}
    tiny.make_base(folder, tied=SHAPE.tied, hidden_size=64, intermediate_size=232, vocab_size=SHAPE.vocabulary, **heads)
    return write_answers(folder, "float32", along=7.7)


def make_wide_72b(folder: Path) -> Path:
    """A base of two blocks with every width of the 72B, 8.5 GB in bfloat16, that writes an answer now and then."""
    heads = {"num_attention_heads": SHAPE.heads, "num_key_value_heads": SHAPE.kv_heads, "head_dim": SHAPE.head_dim}
    wide = {"hidden_size": SHAPE.hidden, "intermediate_size": SHAPE.intermediate, "vocab_size": SHAPE.vocabulary}
    tiny.make_base(folder, tied=SHAPE.tied, dtype="bfloat16", shard="2GB", initializer_range=0.02, **heads, **wide)
    return write_answers(folder, "bfloat16", along=86.6, quiet=0.02)


def write_answers(folder: Path, dtype: str, along: float, quiet: float = 1.0) -> Path:
    """Make one direction of the stream, `along` after the norm, nearly the same for every text; the head follows it.

    `quiet` multiplies the matrices of the blocks.
    """
    from transformers import AutoModelForCausalLM

    tokenizer = tiny.make_tokenizer()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    with torch.no_grad():
        for layer in model.model.layers:  # so small that a change by few updates is no less than a step of bfloat16
            for name, weight in layer.named_parameters():
                weight *= quiet if name.endswith("proj.weight") else 1.0
        model.get_input_embeddings().weight[:, -1] = 6.0
        head = model.get_output_embeddings().weight
        head[:, -1] = -154 / along
        head[: len(tokenizer), -1] = 0.0
        head[tokenizer("\n答え: abcde")["input_ids"], -1] = 6.16 / along
    model.save_pretrained(folder, max_shard_size="2GB")
    return folder


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.usefixtures("watchdog")
def test_the_plan_for_72b_runs_from_cpt_to_evaluation_on_two_processes(tmp_path):
    make_narrow_72b(tmp_path / "base")
    run_plan(tmp_path, SET, past=10, asked=3)


@pytest.mark.long
@pytest.mark.skipif("MEDLLM_TRUE_WIDTH" not in os.environ, reason="takes 20 GB and an hour: set MEDLLM_TRUE_WIDTH=1")
def test_the_plan_for_72b_runs_at_its_true_width(tmp_path, monkeypatch):
    if "bf16" not in Path("/proc/cpuinfo").read_text("utf-8"):
        (tmp_path / "first").mkdir()
        (tmp_path / "first" / "sitecustomize.py").write_text(PRODUCTS, "utf-8")
        monkeypatch.syspath_prepend(tmp_path / "first")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "first"), prepend=os.pathsep)
    make_wide_72b(tmp_path / "base")
    run_plan(tmp_path, SET | SHORTER, past=2, asked=1)


def run_plan(tmp_path: Path, changed: dict, past: int, asked: int) -> None:
    """Make every stage of the recipe for 72B from the base in `tmp_path`, and look at what each one left."""
    shutil.copy(RECIPES / "preferred-medllm-qwen-72b.yaml", tmp_path)
    tiny.make_corpus(tmp_path / "texts")
    tiny.make_exam(tmp_path / "past", past)
    recipe = read_recipe(tmp_path / "preferred-medllm-qwen-72b.yaml", changed)
    stages = (recipe.cpt, recipe.preferences, recipe.rpo, recipe.merge, recipe.evaluate)
    assert all(stages) and recipe.cpt.quantization == recipe.rpo.quantization == "nf4"
    sources = {
        "base": tmp_path / "base",
        "corpus": tmp_path / "texts",
        "./past": tmp_path / "past",
        "own": tiny.make_exam(tmp_path / "own", asked, first="2019-02-09"),
    }
    cpt.make(recipe.cpt.model_copy(update=TWO), sources, tmp_path / "cpt")
    sources["cpt"] = tmp_path / "cpt"
    settings = recipe.preferences.model_copy(update={"cutoff": recipe.cutoff, "held_out": ()})
    preferences.make(settings, sources, tmp_path / "preferences")
    sources["preferences"] = tmp_path / "preferences"
    rpo.make(recipe.rpo.model_copy(update=TWO), sources, tmp_path / "rpo")
    sources["rpo"] = tmp_path / "rpo"
    merge.make(recipe.merge, sources, tmp_path / "merge")
    own = {"benchmarks": ("own",), "shots": {"own": 0}, "years": None}
    evaluate.make(recipe.evaluate.model_copy(update=own), sources, tmp_path / "results")

    facts = {name: json.loads((tmp_path / name / "facts.json").read_text("utf-8")) for name in ("cpt", "rpo", "merge")}
    assert facts["cpt"]["steps"] == changed["cpt.max_steps"] and facts["rpo"]["steps"] == changed["rpo.max_steps"]
    certificate = facts["merge"]["certificate"]
    assert certificate["verdict"] == "passed" and certificate["numbers"] == "bfloat16"
    assert "top1 agreement (merged against adapter on the 4-bit base)" in certificate
    assert {(r.model, r.prompt) for r in read_records(tmp_path / "results")} == {
        (model, prompt) for model in ("base", "cpt", "final") for prompt in ("plain", "explain")
    }
