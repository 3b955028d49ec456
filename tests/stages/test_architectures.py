"""The whole way on many architectures: load, both trainings, a kill between, merge and answers, or a refusal before."""

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from medllm.generation.engine.choice import open_generator
from medllm.generation.types import Request
from medllm.stages import cpt, rpo
from medllm.stages.merge import merge_into
from medllm.training import callbacks
from medllm.weights.load import load_tokenizer
from tests import tiny
from tests.refusals import refused

QUICK = ("qwen3_moe", "gpt_oss")
"""The types of `make test`; the others are long."""
PACKED = {"packed": True, "layout": "one row"}
APART = {"packed": False, "layout": "two rows"}
WAYS = {
    "qwen2": PACKED,
    "qwen3": PACKED,
    "llama": PACKED,
    "mistral": PACKED,
    "ministral3": PACKED,
    "olmo3": PACKED,
    "phi3": PACKED,
    "glm4": PACKED,
    "gemma2": {"packed": True, "layout": "two rows"},
    "gemma3": PACKED,
    "gemma4_text": PACKED,
    "mixtral": PACKED,
    "qwen3_moe": PACKED,
    "glm4_moe": PACKED,
    "deepseek_v3": PACKED,
    "llama4_text": {"packed": False, "layout": "two rows, padded at the end"},
    "gpt_oss": APART,
    "qwen3_5": APART,
    "qwen3_next": APART,
    "falcon_h1": APART,
    "nemotron_h": APART,
    "mamba": APART,
}
"""How rows of each type are laid out, as the probes find it."""


class Killed(Exception):
    """What a kill is in this process."""


def killed(checkpoint):
    raise Killed


def weights(folder):
    """Every tensor in a folder, which holds at least one file of them."""
    files = sorted(folder.glob("*.safetensors"))
    assert files, folder
    return {name: one for path in files for name, one in load_file(path).items()}


def resumed(stage, settings, sources, out):
    """Run a stage that is killed at its first checkpoint, and run it again; its weights are those of a run without."""
    stage.make(settings, sources, out)
    again = out.with_name(f"{out.name}-again")
    with pytest.raises(Killed), tiny.at_each_checkpoint(killed):
        stage.make(settings, sources, again)
    stage.make(settings, sources, again)
    one, other = weights(out), weights(again)
    assert one.keys() == other.keys() and [name for name in one if not torch.equal(one[name], other[name])] == []
    return json.loads((out / "facts.json").read_text("utf-8"))


def plain(base, adapter, texts, tokenizer):
    """What `generate` of transformers, with PEFT's own adapter, answers to each text alone."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    model = PeftModel.from_pretrained(model, str(adapter)).eval() if adapter else model
    found = []
    for text in texts:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        more = {"attention_mask": torch.ones_like(ids), "pad_token_id": tokenizer.pad_token_id}
        with torch.no_grad():
            written = model.generate(input_ids=ids, max_new_tokens=12, do_sample=False, **more)
        found.append(written[0, ids.shape[1] :].tolist())
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "family", [pytest.param(family, marks=() if family in QUICK else pytest.mark.long) for family in WAYS]
)
def test_an_architecture_goes_the_whole_way_with_nothing_wrong(tmp_path, monkeypatch, family):
    sources = {
        "base": tiny.make_base(tmp_path / "base", family=family),
        "corpus": tiny.make_corpus(tmp_path / "corpus", count=30),
        "preferences": tiny.make_pairs(tmp_path / "preferences", count=8),
        "cpt": tmp_path / "cpt",
    }
    monkeypatch.setattr(callbacks, "SAMPLED_TOKENS", 4)
    quick = {"max_steps": 2, "save_steps": 1}
    facts = resumed(cpt, tiny.CPT.model_copy(update=quick), sources, tmp_path / "cpt")
    facts |= resumed(rpo, tiny.RPO.model_copy(update=quick), sources, tmp_path / "rpo")
    assert {name: facts[name] for name in WAYS[family]} == WAYS[family]
    merge_into(sources["base"], [tmp_path / "rpo"], tmp_path / "merged", dtype=None, questions=0)
    model = AutoModelForCausalLM.from_pretrained(sources["base"], dtype=torch.float32)
    expected = PeftModel.from_pretrained(model, str(tmp_path / "rpo")).merge_and_unload().state_dict()
    got = AutoModelForCausalLM.from_pretrained(tmp_path / "merged.part", dtype=torch.float32).state_dict()
    assert got.keys() == expected.keys()
    assert [name for name in got if not torch.equal(got[name], expected[name])] == []
    generator = open_generator("auto", sources["base"], {"rpo": tmp_path / "rpo"}, dtype="float32")
    tokenizer = load_tokenizer(sources["base"])
    shot = "".join(tiny.sentences(3, seed=9)) + "\n\n"
    texts = [shot + text for text in tiny.sentences(3, seed=11)]
    for name, adapter in (("base", None), ("rpo", tmp_path / "rpo")):
        asked = [
            Request(key=str(n), model=name, text=text, shared=len(shot), max_new_tokens=12)
            for n, text in enumerate(texts)
        ]
        replies = {reply.key: list(reply.tokens) for reply in generator.generate(asked)}
        for number, tokens in enumerate(plain(sources["base"], adapter, texts, tokenizer)):
            ours = replies[str(number)]
            assert ours == tokens[: len(ours)] and (len(ours) == 12 or tokens[len(ours)] in generator.ends)


@pytest.mark.parametrize(("family", "code"), [("gpt2", "training.transposed-base"), ("bert", "training.not-causal")])
def test_an_architecture_that_cannot_go_the_whole_way_is_refused_before_the_first_update(tmp_path, family, code):
    sources = {
        "base": tiny.make_base(tmp_path / "base", family=family),
        "corpus": tiny.make_corpus(tmp_path / "corpus"),
    }
    with refused(code, family):
        cpt.make(tiny.CPT, sources, tmp_path / "out")
