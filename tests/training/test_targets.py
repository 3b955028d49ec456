"""Which layers learn: by name, by the word for all of them, and what is said of those that are left."""

import pytest

from medllm.recipe.settings import Lora
from medllm.training.arguments import coverage, linear_layers, lora_config, target_modules
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


def test_names_that_match_some_layers_say_which_are_left(base):
    from peft import get_peft_model

    lora = Lora(r=1, lora_alpha=1, target_modules=("q_proj", "down_proj"))
    model = get_peft_model(base, lora_config(lora, base))
    assert coverage(model) == (
        "adapters on 4 of 14 linear layers (down_proj x 2, q_proj x 2); without one: gate_proj x 2, k_proj x 2, "
        "o_proj x 2, up_proj x 2, v_proj x 2"
    )


def test_a_name_that_no_layer_has_is_refused_with_those_there_are(base):
    with refused("training.unknown-layer", "`qkv_proj`", "down_proj, ", "v_proj"):
        target_modules(Lora(r=1, lora_alpha=1, target_modules=("q_proj", "qkv_proj")), base)
