"""The cost formulas against real models: what autograd keeps, and what bitsandbytes packs."""

from pathlib import Path

import pytest

from medllm.recipe.cost import activation_bytes, trainable_parameters, weight_bytes
from medllm.recipe.hardware import Shape
from medllm.recipe.settings import Cpt, Lora
from tests import tiny

SHAPE = Shape(192, 3, 6, 3, 32, 512, 400, tied=False, family="qwen2")
LORA = Lora(r=8, lora_alpha=8)
TOKENS = 256

pytestmark = pytest.mark.slow


def config():
    transformers = pytest.importorskip("transformers")
    return transformers.Qwen2Config(
        hidden_size=SHAPE.hidden,
        num_hidden_layers=SHAPE.layers,
        num_attention_heads=SHAPE.heads,
        num_key_value_heads=SHAPE.kv_heads,
        head_dim=SHAPE.head_dim,
        intermediate_size=SHAPE.intermediate,
        vocab_size=SHAPE.vocabulary,
        tie_word_embeddings=SHAPE.tied,
    )


@pytest.fixture
def adapted():
    """A function that builds the model with its adapter, in given numbers."""
    torch = pytest.importorskip("torch")
    import transformers
    from peft import LoraConfig, get_peft_model

    def build(dtype: str):
        made = transformers.AutoModelForCausalLM.from_config(config(), dtype=getattr(torch, dtype))
        return get_peft_model(made, LoraConfig(r=LORA.r, target_modules=list(LORA.target_modules))).train()

    return build


def kept_bytes(model) -> int:
    """Bytes that autograd keeps in one forward pass through the blocks, the weights themselves left out."""
    import torch

    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        # Held until counted: freed storage would be given out again under the same address.
        out = model.model.model(input_ids=torch.zeros((1, TOKENS), dtype=torch.long))
        counted = sum(kept.values())
    assert out.last_hidden_state.requires_grad
    return counted


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_bytes_that_autograd_keeps_are_those_of_the_formula(adapted, dtype: str):
    settings = Cpt(lora=LORA, max_steps=1, max_length=TOKENS, dtype=dtype, gradient_checkpointing=False)
    logits = TOKENS * SHAPE.vocabulary * 4
    formula = activation_bytes(SHAPE, settings, LORA) - logits
    # The last norm and the position angles belong to no block: a few per cent of so small a model.
    assert formula == pytest.approx(kept_bytes(adapted(dtype)), rel=0.06)


def test_the_adapter_has_as_many_numbers_as_the_formula_says(adapted):
    real = sum(weight.numel() for weight in adapted("float32").parameters() if weight.requires_grad)
    assert trainable_parameters(SHAPE, LORA) == real


def test_a_quantized_model_weighs_what_the_formula_says(tmp_path: Path):
    torch = pytest.importorskip("torch")
    import transformers

    from medllm.weights.load import load_base

    transformers.AutoModelForCausalLM.from_config(config(), dtype=torch.bfloat16).save_pretrained(str(tmp_path))
    tiny.make_tokenizer().save_pretrained(str(tmp_path))
    model = load_base(tmp_path, quantization="nf4", device="cpu")
    packed = 0
    for weight in model.parameters():
        packed += weight.numel() * weight.element_size()
        if state := getattr(weight, "quant_state", None):
            packed += state.absmax.nbytes + state.state2.absmax.nbytes
    assert weight_bytes(SHAPE, "nf4", "bfloat16") == pytest.approx(packed, rel=0.01)
