"""Which layers learn: by name, by the word for all of them, and what is said of those that are left."""

import pytest
import torch

from medllm.recipe.settings import Lora
from medllm.training.targets import coverage, linear_layers, lora_config, target_modules, unreached
from medllm.weights.load import load_base
from tests import tiny
from tests.refusals import refused

BLOCK = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]


@pytest.fixture(params=["none", "nf4"])
def base(tmp_path, request):
    return load_base(tiny.make_base(tmp_path / "base"), dtype="float32", quantization=request.param)


def test_all_linear_is_every_linear_layer_of_a_block_and_not_the_head(base):
    assert target_modules(Lora(r=1, lora_alpha=1, target_modules=("all-linear",)), base) == BLOCK
    assert len(linear_layers(base)) == 14 and not any("head" in name for name in linear_layers(base))


def test_names_that_match_some_layers_say_which_are_left_and_how_much_of_the_model_learns(base):
    from peft import get_peft_model

    lora = Lora(r=1, lora_alpha=1, target_modules=("q_proj", "down_proj"))
    found = coverage(get_peft_model(base, lora_config(lora, base)))
    # 2 blocks of 32 x 32 and 64 x 32, of a base of 44,320 numbers; adapters of rank 1 on them
    share, own = 2 * (32 * 32 + 64 * 32) / 44320, 2 * (64 + 96)
    assert found.facts == {
        **{"adapted_layers": 4, "linear_layers": 14, "adapted_share": round(share, 4), "trained_numbers": own},
    }
    assert found.sentence == (
        f"adapts 4 of 14 linear layers (down_proj x 2, q_proj x 2), {share:.1%} of the weights, with {own} numbers of "
        "its own; without an adapter: gate_proj x 2, k_proj x 2, o_proj x 2, up_proj x 2, v_proj x 2"
    )


def test_a_name_that_no_layer_has_is_refused_with_those_there_are(base):
    with refused("training.unknown-layer", "`qkv_proj`", "down_proj, ", "v_proj"):
        target_modules(Lora(r=1, lora_alpha=1, target_modules=("q_proj", "qkv_proj")), base)


@pytest.mark.parametrize(
    ("family", "named"),
    [
        ("qwen2", BLOCK),
        ("phi3", ["down_proj", "gate_up_proj", "o_proj", "qkv_proj"]),
        ("qwen3_moe", ["k_proj", "o_proj", "q_proj", "v_proj"]),
        # PEFT takes gate_proj, up_proj and down_proj of its dense block and shared expert for the fused experts
        ("glm4_moe", ["k_proj", "o_proj", "q_proj", "v_proj"]),
        # out_proj's weights go into a kernel that passes the layer over
        ("falcon_h1", BLOCK),
        # its router is a linear layer whose result is no product
        ("llama4_text", BLOCK),
    ],
)
def test_the_default_names_are_the_linear_layers_that_can_be_adapted(tmp_path, family, named):
    model = load_base(tiny.make_base(tmp_path / "base", family=family), dtype="float32")
    assert sorted(target_modules(Lora(r=1, lora_alpha=1), model)) == named
    every = target_modules(Lora(r=1, lora_alpha=1, target_modules=("all-linear",)), model)
    assert set(named) <= set(every) and not {"out_proj", "router", "lm_head"} & set(every)


def test_layers_without_an_adapter_are_named_with_the_reason_and_the_experts_are_counted(tmp_path):
    from peft import get_peft_model

    model = load_base(tiny.make_base(tmp_path / "base", family="glm4_moe"), dtype="float32")
    found = coverage(get_peft_model(model, lora_config(Lora(r=1, lora_alpha=1), model)))
    assert (found.facts["adapted_layers"], found.facts["linear_layers"]) == (8, 14)
    # 4 experts of 3 x 32 x 32 in the second block
    assert f"the fused experts, {4 * 3 * 32 * 32 / 53536:.1%} of the weights" in found.sentence
    assert "down_proj, gate_proj, up_proj: PEFT takes the name for the fused experts" in found.sentence


def test_names_of_experts_alone_are_refused(tmp_path):
    model = load_base(tiny.make_base(tmp_path / "base", family="glm4_moe"), dtype="float32")
    with refused("training.no-adaptable-layer", "gate_proj", "fused experts", "q_proj"):
        target_modules(Lora(r=1, lora_alpha=1, target_modules=("gate_proj", "up_proj")), model)


def test_adapted_layers_that_no_text_goes_through_are_named(tmp_path):
    from peft import get_peft_model

    model = load_base(tiny.make_base(tmp_path / "base"), dtype="float32")
    model = get_peft_model(model, lora_config(Lora(r=1, lora_alpha=1, target_modules=("q_proj", "o_proj")), model))
    ids = torch.arange(5, 15)[None]
    assert unreached(model, lambda: model(input_ids=ids)) is None
    layer = model.base_model.model.model.layers[1].self_attn
    layer.o_proj.forward = layer.o_proj.base_layer.forward  # as a kernel does that takes the weights itself
    layer.forward = lambda hidden_states, **_: (layer.o_proj.forward(hidden_states), None)
    found = unreached(model, lambda: model(input_ids=ids))
    assert "2 adapted layers," in found and "model.layers.1.self_attn.q_proj" in found
    with refused("training.adapter-not-reached", "target_modules"):
        unreached(model, lambda: None)
