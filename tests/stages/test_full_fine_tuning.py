"""Trainings without `lora`: all weights learn, and what is written is a full model that every later stage takes."""

import json
from typing import get_args

import pytest
import torch
from transformers import AutoModelForCausalLM

from medllm.generation.engine.choice import open_generator
from medllm.generation.types import Request
from medllm.recipe.settings import Merge
from medllm.recipe.training import Optimizer
from medllm.stages import cpt, merge, rpo
from medllm.training import callbacks
from medllm.weights.load import load_tokenizer
from tests import tiny
from tests.refusals import refused
from tests.stages.test_architectures import plain, resumed, weights

FULL = {"lora": None, "learning_rate": 1e-3, "max_steps": 4, "save_steps": 2}


@pytest.fixture(scope="module", params=[pytest.param("apart", marks=pytest.mark.long), "tied"])
def sources(tmp_path_factory, request):
    folder = tmp_path_factory.mktemp("sources")
    return {
        "base": tiny.make_base(folder / "base", tied=request.param == "tied"),
        "corpus": tiny.make_corpus(folder / "corpus", count=30),
        "preferences": tiny.make_pairs(folder / "preferences", count=8),
    }


def test_both_trainings_change_every_weight_are_resumed_and_answer_as_plain_generate(sources, tmp_path, monkeypatch):
    monkeypatch.setattr(callbacks, "SAMPLED_TOKENS", 4)
    before = weights(sources["base"])
    facts = resumed(cpt, tiny.CPT.model_copy(update=FULL), sources, tmp_path / "cpt")
    count = sum(one.numel() for one in before.values())
    assert facts["method"] == "full fine-tuning" and facts["trained_numbers"] == count
    assert facts["last_loss"] < facts["first_loss"]
    names = {path.name for path in (tmp_path / "cpt").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= names
    assert not names & {"adapter_config.json", "checkpoints", "cache"}
    after = weights(tmp_path / "cpt")
    assert after.keys() == before.keys()
    assert [name for name in before if torch.equal(before[name], after[name])] == []
    sources = {**sources, "cpt": tmp_path / "cpt"}
    facts = resumed(rpo, tiny.RPO.model_copy(update=FULL), sources, tmp_path / "rpo")
    assert facts["method"] == "full fine-tuning" and facts["last"]["loss"] < facts["first"]["loss"]
    assert facts["first"]["rewards/margins"] == 0, "the first update is measured against the very start"
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "rpo")
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == model.config.tie_word_embeddings
    texts = tiny.sentences(2, seed=11)
    asked = [Request(key=str(n), model="base", text=text, max_new_tokens=8) for n, text in enumerate(texts)]
    generator = open_generator("auto", tmp_path / "rpo", None, dtype="float32")
    replies = {reply.key: list(reply.tokens) for reply in generator.generate(asked)}
    for number, tokens in enumerate(plain(tmp_path / "rpo", None, texts, load_tokenizer(tmp_path / "rpo"))):
        ours = replies[str(number)]
        assert ours == tokens[: len(ours)] and (len(ours) == 8 or tokens[len(ours)] in generator.ends)
    with refused("weights.not-an-adapter", tmp_path / "rpo", "a full model"):
        merge.make(Merge(model="rpo"), {**sources, "rpo": tmp_path / "rpo"}, tmp_path / "merged")


@pytest.mark.parametrize("sources", ["tied"], indirect=True)
@pytest.mark.parametrize(
    "optim", [one if one == "muon" else pytest.param(one, marks=pytest.mark.long) for one in get_args(Optimizer)]
)
def test_an_optimizer_changes_every_weight_and_is_resumed(sources, tmp_path, optim):
    if optim.startswith("paged") and not torch.cuda.is_available():
        pytest.skip("bitsandbytes pages the memory of GPUs only")
    settings = tiny.CPT.model_copy(update={**FULL, "optim": optim, "warmup_ratio": 0.0})
    resumed(cpt, settings, sources, tmp_path / "cpt")
    before, after = weights(sources["base"]), weights(tmp_path / "cpt")
    assert [name for name in before if torch.equal(before[name], after[name])] == []


def test_in_bfloat16_the_weights_learn_in_float32_and_are_written_in_bfloat16(sources, tmp_path):
    settings = tiny.CPT.model_copy(update={**FULL, "dtype": "bfloat16", "learning_rate": 1e-5})
    seen = {}

    def look(checkpoint):
        seen.update(weights(checkpoint))

    with tiny.at_each_checkpoint(look):
        cpt.make(settings, sources, tmp_path / "cpt")
    assert {one.dtype for one in seen.values()} == {torch.float32}
    made = weights(tmp_path / "cpt")
    assert {one.dtype for one in made.values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "cpt" / "config.json").read_text("utf-8"))["dtype"] == "bfloat16"
    assert all(torch.equal(made[name], seen[name].bfloat16()) for name in made)


def test_four_bit_weights_are_refused_before_the_base_is_loaded(sources, tmp_path):
    for stage, settings in ((cpt, tiny.CPT), (rpo, tiny.RPO.model_copy(update={"model": "base"}))):
        with refused("training.full-on-4-bit", sources["base"], "`lora"):
            stage.make(settings.model_copy(update={**FULL, "quantization": "nf4"}), sources, tmp_path / stage.__name__)
