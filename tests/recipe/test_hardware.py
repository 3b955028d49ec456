"""Shapes of known bases, against transformers itself, and of any config.json."""

import json
from pathlib import Path

import pytest

from medllm.errors import ModelError
from medllm.recipe.hardware import (
    KNOWN,
    PROVEN,
    Shape,
    causal_types,
    known_shape,
    refuse_unsupported,
    shape_from_config,
)
from tests.refusals import refused


@pytest.mark.slow
@pytest.mark.parametrize("name", KNOWN)
def test_a_known_base_has_as_many_parameters_as_transformers_builds(name: str):
    torch = pytest.importorskip("torch")
    import transformers

    shape = KNOWN[name]
    kinds = {
        "qwen2": transformers.Qwen2Config,
        "qwen3": transformers.Qwen3Config,
        "gemma3": transformers.Gemma3TextConfig,
        "llama": transformers.LlamaConfig,
    }
    config = kinds[shape.family](
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        intermediate_size=shape.intermediate,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=shape.tied,
    )
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    model.tie_weights()
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())


def test_variants_share_their_shape(tmp_path: Path):
    small = KNOWN["Qwen/Qwen2.5-0.5B"]
    assert known_shape("Qwen/Qwen2.5-0.5B@main", tmp_path) == small
    assert known_shape("Qwen/Qwen2.5-Coder-0.5B-Instruct@main", tmp_path) == small
    assert known_shape("someone/else@main", tmp_path) is None


def test_a_folder_is_sized_by_its_config(tmp_path: Path):
    config = {
        "model_type": "qwen2",
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "intermediate_size": 384,
        "vocab_size": 1200,
        "tie_word_embeddings": True,
    }
    (tmp_path / "base").mkdir()
    (tmp_path / "base/config.json").write_text(json.dumps(config))
    assert known_shape("./base", tmp_path) == Shape(128, 4, 8, 8, 16, 384, 1200, tied=True, family="qwen2")


def test_a_multimodal_config_is_sized_by_its_text_part(tmp_path: Path):
    text = {
        "model_type": "gemma3_text",
        "hidden_size": 640,
        "num_hidden_layers": 18,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "intermediate_size": 2048,
        "vocab_size": 262144,
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "gemma3", "text_config": text}))
    assert shape_from_config(path) == KNOWN["google/gemma-3-270m"]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"hidden_size": "x"}', '{"num_attention_heads": 0, "hidden_size": 8}']
)
def test_what_is_no_config_is_refused_by_name(tmp_path: Path, text: str):
    path = tmp_path / "config.json"
    path.write_text(text)
    with refused("weights.bad-config", path, kind=ModelError):
        shape_from_config(path)


def test_a_missing_config_is_named(tmp_path: Path):
    with refused("weights.no-config", tmp_path / "config.json", kind=ModelError):
        shape_from_config(tmp_path / "config.json")


QWEN3_30B = {
    "model_type": "qwen3_moe", "hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 32,
    "num_key_value_heads": 4, "head_dim": 128, "intermediate_size": 6144, "moe_intermediate_size": 768,
    "num_experts": 128, "num_experts_per_tok": 8, "vocab_size": 151936, "tie_word_embeddings": False,
}  # fmt: skip
MIXTRAL = {
    "model_type": "mixtral", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "intermediate_size": 14336, "num_local_experts": 8, "vocab_size": 32000,
    "tie_word_embeddings": False,
}  # fmt: skip


@pytest.mark.parametrize(("config", "billions"), [(QWEN3_30B, 30.5), (MIXTRAL, 46.7)])
def test_experts_are_part_of_a_models_size_and_a_refusal_names_both_figures(tmp_path: Path, config, billions):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    shape = shape_from_config(path)
    assert shape.parameters / 1e9 == pytest.approx(billions, abs=0.06)
    sizes = (f"{shape.parameters / 1e9:.2f} billion", f"{shape.expert_parameters / 1e9:.2f} of them in experts")
    refuse_unsupported(path)
    path.write_text(json.dumps(config | {"model_type": "of_tomorrow"}))
    with refused("weights.unsupported-type", path, "`of_tomorrow`", *sizes, kind=ModelError):
        refuse_unsupported(path)


def test_a_model_whose_code_is_in_its_repository_is_refused_with_what_runs_it(tmp_path: Path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "plamo3", "auto_map": {"AutoModelForCausalLM": "modeling.Plamo"}}))
    with refused("weights.unsupported-type", path, "`plamo3`", "--trust-remote-code", "`engine`", kind=ModelError):
        refuse_unsupported(path)


def test_the_types_of_transformers_are_read_without_importing_it():
    names = pytest.importorskip("transformers.models.auto.modeling_auto").MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    assert causal_types() == frozenset(names) and set(PROVEN) <= causal_types()


@pytest.mark.slow
@pytest.mark.parametrize("config", [QWEN3_30B, MIXTRAL])
def test_a_model_with_experts_is_as_large_as_transformers_builds_it(tmp_path: Path, config):
    torch = pytest.importorskip("torch")
    from transformers import AutoConfig, AutoModelForCausalLM

    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    values = {name: value for name, value in config.items() if name != "model_type"}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(config["model_type"], **values))
    built = sum(parameter.numel() for parameter in model.parameters())
    assert shape_from_config(path).parameters == pytest.approx(built, rel=1e-3)
