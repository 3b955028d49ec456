"""Linear layers with several adapters: PEFT's numbers to the last bit, each row by its own model."""

import copy

import pytest
import torch
from peft.tuners.lora import Linear4bit, LoraLayer

from medllm.generation.engine.local import LocalGenerator, MultiLoraLinear, replace_lora_layers
from medllm.weights.load import load_adapters, load_base
from tests import tiny

TOKENS = 300
"""More than are added at a time, and no multiple of it."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapted")
    base = tiny.make_base(folder / "base")
    cpt = tiny.make_adapter(folder / "cpt", base, seed=1)
    final = tiny.make_adapter(
        folder / "final", base, seed=2, r=16, use_rslora=True, target_modules=["v_proj", "up_proj"]
    )
    return base, {"cpt": cpt, "final": final}


def laid(folders, **options):
    base, adapters = folders
    return load_adapters(load_base(base, **options), adapters, base)


def of_peft(layer, given, model):
    """What PEFT gives a row asked alone; on a 4-bit base without rounding the change before it is added."""
    if model not in layer.lora_A:
        return layer.base_layer(given)
    if isinstance(layer, Linear4bit):
        change = layer.lora_B[model](layer.lora_A[model](given.float())) * layer.scaling[model]
        return (layer.base_layer(given) + change).to(given.dtype)
    layer.set_adapter(model, inference_mode=True)
    return layer(given)


@pytest.mark.parametrize("options", [{"dtype": "float32"}, {"dtype": "bfloat16"},
                                     {"dtype": "bfloat16", "quantization": "nf4"}], ids=str)  # fmt: skip
def test_each_row_gets_to_the_last_bit_what_peft_gives_it_alone(folders, options):
    peft, ours = laid(folders, **options), laid(folders, **options)
    asking, left = replace_lora_layers(ours)
    assert not left
    asking.of(["base", "cpt", "cpt", "final"])
    compared = 0
    with torch.inference_mode():
        for name, layer in ours.named_modules():
            if not isinstance(layer, MultiLoraLinear):
                continue
            given = torch.randn(4, TOKENS, layer.base_layer.in_features, generator=torch.Generator().manual_seed(7))
            given = given.to(getattr(torch, options["dtype"]))
            result = layer(given)
            for row, model in enumerate(("base", "cpt", "cpt", "final")):
                alone = of_peft(peft.get_submodule(name), given[row : row + 1], model)
                assert torch.equal(result[row : row + 1], alone), (name, row)
                compared += model in layer.factors
    assert compared == 2 * 3 * 2 + 2 * 2, "two layers, in each three modules of cpt (two rows) and two of final"


def test_a_pass_that_asks_one_model_needs_no_rows_named(folders):
    ours = laid(folders, dtype="float32")
    asking, _ = replace_lora_layers(ours)
    layer = next(module for module in ours.modules() if isinstance(module, MultiLoraLinear))
    given = torch.randn(2, 5, layer.base_layer.in_features)
    with torch.inference_mode():
        asking.of(["base"])
        bare = layer(given)
        asking.of(["cpt"])
        adapted = layer(given)
    assert torch.equal(bare, layer.base_layer(given)) and not torch.equal(bare, adapted)


def test_a_row_of_another_model_in_between_parts_the_rows_of_one(folders):
    asking, _ = replace_lora_layers(laid(folders, dtype="float32"))
    asking.of(["cpt", "base", "cpt", "cpt"])
    assert asking.runs == [("cpt", slice(0, 1)), ("base", slice(1, 2)), ("cpt", slice(2, 4))]


def test_what_is_no_plain_linear_layer_stays_with_peft(tmp_path, folders):
    base, adapters = folders
    words = tiny.make_adapter(tmp_path / "words", base, seed=3, target_modules=["q_proj", "embed_tokens"])
    head = tiny.make_adapter(tmp_path / "head", base, seed=4, modules_to_save=["lm_head"])
    ours = load_adapters(load_base(base, dtype="float32"), {**adapters, "words": words, "head": head}, base)
    kept = copy.deepcopy(ours.get_submodule("base_model.model.lm_head").modules_to_save["head"].weight)
    _, left = replace_lora_layers(ours)
    assert left == {"words"}, "the only LoRA layer left is the embedding's"
    assert [type(module).__name__ for module in ours.modules() if isinstance(module, LoraLayer)] == ["Embedding"]
    assert torch.equal(ours.get_submodule("base_model.model.lm_head").modules_to_save["head"].weight, kept)


def test_an_adapter_of_linear_layers_alone_leaves_nothing_to_peft(folders):
    generator = LocalGenerator(*folders, dtype="float32")
    assert generator.left_to_peft == frozenset()
    assert not [module for module in generator.model.modules() if isinstance(module, LoraLayer)]
