"""Kinds of adapters that a recipe may ask for, from the corpus to merged weights and answers, or refused."""

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from medllm.generation.engine.choice import open_generator
from medllm.generation.serving import refuse_adapter
from medllm.generation.types import Request
from medllm.recipe.settings import Lora
from medllm.stages import cpt, rpo
from medllm.stages.merge import merge_into
from medllm.training import callbacks
from medllm.weights.adapter import Adapter
from medllm.weights.load import load_tokenizer
from tests import tiny
from tests.refusals import refused
from tests.stages.test_architectures import plain, resumed

DORA = {"use_dora": True}
KINDS = {
    "DoRA": DORA,
    "rsLoRA and patterns": {
        "use_rslora": True,
        **{"rank_pattern": {"q_proj": 2, r"layers\.1\..*up_proj": 3}, "alpha_pattern": {"q_proj": 16}},
    },
    "whole norms": {"modules_to_save": ("norm",)},
    "whole embedding": {"modules_to_save": ("embed_tokens",), "target_modules": ("all-linear",)},
    "DoRA, rsLoRA and a whole norm": {**DORA, "use_rslora": True, "modules_to_save": ("model.norm",)},
}
REFUSED_BY_VLLM = {"DoRA", "whole norms", "whole embedding", "DoRA, rsLoRA and a whole norm"}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    return {
        "base": tiny.make_base(folder / "base"),
        "corpus": tiny.make_corpus(folder / "corpus", count=30),
        "preferences": tiny.make_pairs(folder / "preferences", count=8),
    }


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("DoRA", "float32"),
        *(pytest.param(kind, "float32", marks=pytest.mark.long) for kind in list(KINDS)[1:]),
        pytest.param("DoRA, rsLoRA and a whole norm", "bfloat16", marks=pytest.mark.long),
        pytest.param("whole embedding", "bfloat16", marks=pytest.mark.long),
    ],
)
def test_a_kind_of_adapter_goes_the_whole_way_and_stops_on_it(sources, tmp_path, monkeypatch, kind, dtype):
    monkeypatch.setattr(callbacks, "SAMPLED_TOKENS", 4)
    sources = {**sources, "cpt": tmp_path / "cpt"}
    quick = {"max_steps": 2, "save_steps": 1, "dtype": dtype}
    lora = Lora(**{"r": 4, "lora_alpha": 8, **KINDS[kind]})
    resumed(cpt, tiny.CPT.model_copy(update={**quick, "lora": lora}), sources, tmp_path / "cpt")
    resumed(rpo, tiny.RPO.model_copy(update=quick), sources, tmp_path / "rpo")
    made = Adapter(tmp_path / "rpo")
    assert made.config["use_dora"] == lora.use_dora and made.config["use_rslora"] == lora.use_rslora
    assert bool(made.magnitudes) == lora.use_dora and bool(made.replaced) == bool(lora.modules_to_save)
    if lora.rank_pattern:
        ranks = {name: narrow.shape[0] for name, (narrow, _) in made.modules.items()}
        assert ranks["model.layers.1.self_attn.q_proj"] == 2 and ranks["model.layers.1.mlp.up_proj"] == 3
        assert ranks["model.layers.0.mlp.up_proj"] == 4
        assert made.scale("model.layers.0.self_attn.q_proj") == pytest.approx(16 / 2**0.5)
    facts = merge_into(sources["base"], [tmp_path / "rpo"], tmp_path / "merged", dtype=None, questions=2)
    assert facts["certificate"]["verdict"] == "passed"
    model = AutoModelForCausalLM.from_pretrained(sources["base"], dtype=torch.float32)
    expected = PeftModel.from_pretrained(model, str(tmp_path / "rpo")).merge_and_unload().state_dict()
    got = AutoModelForCausalLM.from_pretrained(tmp_path / "merged.part", dtype=torch.float32).state_dict()
    assert [name for name in expected if not torch.equal(got[name], expected[name])] == []
    if kind in REFUSED_BY_VLLM:
        with refused("generation.vllm-adapter", tmp_path / "rpo", "Merge it first"):
            refuse_adapter(tmp_path / "rpo")
    else:
        refuse_adapter(tmp_path / "rpo")


@pytest.mark.parametrize("kind", ["DoRA", pytest.param("DoRA, rsLoRA and a whole norm", marks=pytest.mark.long)])
def test_dora_beside_its_base_and_a_plain_adapter_answers_as_it_does_alone(sources, tmp_path, kind):
    more = {"use_dora": True, "modules_to_save": ["norm"] if "norm" in kind else None}
    adapters = {
        "dora": tiny.make_adapter(tmp_path / "dora", sources["base"], std=0.3, **more),
        "plain": tiny.make_adapter(tmp_path / "plain", sources["base"], seed=1, std=0.3),
    }
    texts = tiny.sentences(3, seed=11)
    expected = {
        name: plain(sources["base"], adapter, texts, load_tokenizer(sources["base"]))
        for name, adapter in {"base": None, **adapters}.items()
    }
    assert len({str(one) for one in expected.values()}) == 3, "all three must answer unlike each other"
    for engine in ("local", "transformers"):
        generator = open_generator(engine, sources["base"], adapters, dtype="float32")
        asked = [
            Request(key=f"{name} {n}", model=name, text=text, max_new_tokens=12)
            for n, text in enumerate(texts)
            for name in expected
        ]
        for reply in generator.generate(asked):
            name, number = reply.key.split()
            tokens, ours = expected[name][int(number)], list(reply.tokens)
            assert ours == tokens[: len(ours)] and (len(ours) == 12 or tokens[len(ours)] in generator.ends)


@pytest.mark.parametrize(
    ("lora", "named"),
    [
        ({"rank_pattern": {"q_prj": 2}}, ("lora.rank_pattern", "`q_prj`", "`q_proj`")),
        ({"alpha_pattern": {"(": 2}}, ("lora.alpha_pattern", "no regular expression")),
        ({"modules_to_save": ("embed_token",)}, ("lora.modules_to_save", "`embed_token`", "`embed_tokens`")),
    ],
)
def test_a_pattern_or_module_that_matches_nothing_is_refused_with_the_nearest_name(sources, tmp_path, lora, named):
    settings = tiny.CPT.model_copy(update={"lora": Lora(r=4, lora_alpha=8, **lora)})
    with refused("training.unknown-layer", *named):
        cpt.make(settings, sources, tmp_path / "cpt")


def test_dora_below_or_above_another_adapter_is_refused_before_the_base_is_loaded(sources, tmp_path):
    for name, below, above in (("a", {}, DORA), ("b", DORA, {})):
        start = tiny.make_adapter(tmp_path / name, sources["base"], **below)
        settings = tiny.RPO.model_copy(update={"lora": Lora(r=2, lora_alpha=2, **above)})
        with refused("training.dora-above", start, "`lora`"):
            rpo.make(settings, {**sources, "cpt": start}, tmp_path / f"out-{name}")
    with refused("weights.adapters-apart", tmp_path / "b"):
        merge_into(sources["base"], [tmp_path / "a", tmp_path / "b"], tmp_path / "merged", dtype=None, questions=2)
