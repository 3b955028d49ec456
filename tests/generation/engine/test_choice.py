"""`engine: auto` takes the local engine where it is right, and plain `generate` where it would be wrong."""

import pytest
import torch

from medllm.generation.engine.choice import _alike, difference, open_generator
from medllm.generation.engine.local import LocalGenerator
from medllm.generation.engine.transformers import TransformersGenerator
from medllm.recipe.hardware import PROVEN
from tests import tiny
from tests.refusals import refused

WRONG = ("gpt_oss", "deepseek_v3", "falcon_h1", "qwen3_5_text", "mamba")
FOLLOWED = ("mixtral", "phi3", "olmo3", "gemma4_text", "gpt2")
"""Types whose attention, cache or state the local engine does not have."""


@pytest.mark.parametrize("family", ["qwen2", pytest.param("gemma3_text", marks=pytest.mark.slow)])
def test_a_model_that_the_local_engine_follows_is_given_to_it(family, tmp_path, capsys):
    base = tiny.make_base(tmp_path / "base", family=family)
    adapters = {"cpt": tiny.make_adapter(tmp_path / "cpt", base)}
    assert isinstance(open_generator("auto", base, adapters, dtype="float32"), LocalGenerator)
    assert "engine: local for base" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("family", WRONG)
def test_a_model_that_the_local_engine_does_not_follow_is_given_to_transformers_with_the_reason(
    family, tmp_path, capsys
):
    base = tiny.make_base(tmp_path / "base", family=family)
    assert isinstance(open_generator("auto", base, None, dtype="float32"), TransformersGenerator)
    assert "engine: transformers for base, because the local engine" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("family", FOLLOWED)
def test_a_type_that_is_not_listed_is_followed_where_it_can_be(family, tmp_path):
    base = tiny.make_base(tmp_path / "base", family=family)
    assert family not in PROVEN
    for engine in ("auto", "local"):
        assert isinstance(open_generator(engine, base, None, dtype="float32"), LocalGenerator)


def test_an_attention_that_forgets_the_shared_examples_is_noticed(tmp_path, monkeypatch):
    generator = LocalGenerator(tiny.make_base(tmp_path / "base"), dtype="float32")
    assert difference(generator) is None
    prefix = generator._prefix

    def forgotten(tokens, model):
        found = prefix(tokens, model)
        return type(found)([torch.zeros_like(keys) for keys in found.keys], found.values)

    monkeypatch.setattr(generator, "_prefix", forgotten)
    assert "with shared examples" in difference(generator)


@pytest.mark.parametrize(
    ("ours", "alike"),
    [
        ((1, 2), True),
        ((1, 3), True),  # 0.1 below the likeliest: 16 bits may turn it round
        ((1, 0), False),  # 1.5 below
        ((1,), False),  # ended where plain generation goes on
    ],
)
def test_two_replies_are_alike_when_they_part_only_where_two_tokens_are_as_likely(ours, alike):
    scores = [torch.tensor([0.0, 9.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 1.5, 1.4])]
    assert _alike(ours, [1, 2], scores, frozenset({7}), nearest=0.25) is alike


def test_a_named_engine_is_not_replaced_by_another(tmp_path):
    base = tiny.make_base(tmp_path / "base", family="gpt_oss")
    with refused("generation.local-differs", base, "own attention", "`engine: auto`"):
        open_generator("local", base, None, dtype="float32")
    assert isinstance(open_generator("transformers", base, None, dtype="float32"), TransformersGenerator)
