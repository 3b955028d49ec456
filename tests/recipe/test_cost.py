"""The formulas of docs/cost.md on a toy model whose figures were worked out by hand."""

import pytest

from medllm.recipe.bases import Shape
from medllm.recipe.cost import (
    activation_bytes,
    gpu_hours,
    operations_per_token,
    trainable_parameters,
    training_memory,
    weight_bytes,
)
from medllm.recipe.hardware import machine
from medllm.recipe.settings import Cpt, Lora, Rpo

# Two blocks, hidden 8, two heads of 4 that share one key-value head, feed-forward 16, 100 tokens, untied.
TOY = Shape(8, 2, 2, 1, 4, 16, 100, tied=False)
LORA = Lora(r=2, lora_alpha=4)
CPT = Cpt(lora=LORA, max_steps=1, max_length=16)
RPO = Rpo(model="cpt", rpo_alpha=10, max_steps=1, max_length=16)


def test_parameters():
    # a block: q 8x8, k 8x4, v 8x4, o 8x8, gate, up and down 8x16 = 576; two norms of 8
    assert TOY.linear_parameters == 2 * 576
    # embedding and head 100x8 each, two norms a block, one at the end
    assert TOY.other_parameters == 1600 + 2 * 16 + 8
    assert TOY.parameters == 2792


def test_an_adapter_adds_rank_times_in_plus_out():
    # q and o 2x16, k and v 2x12, gate, up and down 2x24 = 256 a block
    assert trainable_parameters(TOY, LORA) == 512
    # on the embedding: 2 x (100 + 8)
    assert trainable_parameters(TOY, Lora(r=2, lora_alpha=4, target_modules=("embed_tokens",))) == 216


def test_weights():
    assert weight_bytes(TOY, "none", "bfloat16") == 2 * 2792
    # half a byte, a byte of scale for 64, four bytes for 16384: 0.515869140625 x 1152, the rest in bf16
    assert weight_bytes(TOY, "nf4", "bfloat16") == pytest.approx(594.28125 + 3280)


def test_activations():
    # a token in a block: 28x8 + 8x8 + 4x4 + 10x16 + 28x2 = 520 bytes, 16 tokens 8320; inputs of both blocks 512;
    # logits 16x100x4
    assert activation_bytes(TOY, CPT, LORA) == 8320 + 512 + 6400
    # a pair is two rows
    assert activation_bytes(TOY, RPO, LORA) == 2 * (8320 + 512 + 6400)
    # all blocks kept
    kept = CPT.model_copy(update={"gradient_checkpointing": False})
    assert activation_bytes(TOY, kept, LORA) == 2 * 8320 + 6400
    # the largest layer unpacked from 4 bits
    assert activation_bytes(TOY, CPT.model_copy(update={"quantization": "nf4"}), LORA) == 8320 + 512 + 6400 + 256
    # in float32: 16x8 + 8x8 + 8x4 + 16x16 + 28x2 = 536 a token, inputs of 4 bytes
    assert activation_bytes(TOY, CPT.model_copy(update={"dtype": "float32"}), LORA) == 16 * 536 + 1024 + 6400


def test_logits_are_counted_by_the_tile():
    wide = Shape(8, 2, 2, 1, 4, 16, 10**9, tied=False)
    assert activation_bytes(wide, CPT, LORA) == 8320 + 512 + 1e9


def test_memory_whole_and_divided():
    whole = training_memory(TOY, CPT, LORA, 4, sharded=False)
    assert (whole.weights, whole.adapter, whole.activations) == (5584, 512 * 16, 15232)
    assert whole.total == pytest.approx((5584 + 8192 + 15232) * 1.05 + 1e9)
    divided = training_memory(TOY, CPT, LORA, 4, sharded=True)
    # two blocks of 576 weights are gathered at 2 bytes
    assert (divided.weights, divided.adapter, divided.activations) == (5584 / 4, 8192 / 4, 15232 + 2304)


def test_rpo_keeps_a_frozen_copy_of_the_adapter():
    assert training_memory(TOY, RPO, LORA, 1, sharded=False).adapter == 512 * 20


def test_eight_bit_moments_save_six_bytes_a_number():
    eight = CPT.model_copy(update={"optimizer": "adamw_8bit"})
    assert training_memory(TOY, eight, LORA, 1, sharded=False).adapter == 512 * 10


def test_operations():
    # forward: 2 x (1152 + head 800) + attention 2 x 16 x 8 x 2 = 4416; again for gradients and for checkpointing
    assert operations_per_token(TOY, CPT) == 3 * 4416
    assert operations_per_token(TOY, CPT.model_copy(update={"gradient_checkpointing": False})) == 2 * 4416
    # and once for the reference
    assert operations_per_token(TOY, RPO) == 4 * 4416


def test_hours():
    a100, cpu = machine("a100x4"), machine("cpu")
    assert a100 and cpu
    # 312e12 x 0.35 a second; hours of one GPU, however many work
    assert gpu_hours(312e12 * 0.35 * 3600, a100, "none") == pytest.approx(1.0)
    assert gpu_hours(312e12 * 0.25 * 3600, a100, "nf4") == pytest.approx(1.0)
    assert gpu_hours(1e18, cpu, "none") is None
