"""The formulas of docs/cost.md on a toy model whose figures were worked out by hand."""

from dataclasses import replace

import pytest

from medllm.recipe.cost import (
    Memory,
    activation_bytes,
    answering_memory,
    disk_bytes,
    gpu_hours,
    operations_per_token,
    seconds_an_update,
    seconds_between_checkpoints,
    trainable_parameters,
    training_memory,
    weight_bytes,
)
from medllm.recipe.hardware import Shape, machine
from medllm.recipe.settings import Cpt, Evaluate, Lora, Preferences, Rpo

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
    # DoRA: a length for each row of q 8, k 4, v 4, o 8, gate 16, up 16, down 8 = 64 a block; an embedding of 100 x 8
    dora = Lora(r=2, lora_alpha=4, use_dora=True, modules_to_save=("embed_tokens",))
    assert trainable_parameters(TOY, dora) == 512 + 2 * 64 + 800
    # q of rank 3: 16 more a block
    assert trainable_parameters(TOY, Lora(r=2, lora_alpha=4, rank_pattern={"q_proj": 3})) == 512 + 2 * 16


def test_full_fine_tuning_counts_every_weight_with_its_gradient_and_moments_in_float32():
    assert trainable_parameters(TOY, None) == 2792
    whole = training_memory(TOY, CPT, None, 1, sharded=False)
    # 16 bytes a weight, and the copy of 2 bytes that autocast makes; loaded in float32
    assert (whole.adapter, whole.weights) == (16 * 2792, 2 * 2792)
    assert whole.loading > 4 * 2792
    # FSDP2 divides all of it
    part = training_memory(TOY, CPT, None, 4, sharded=True)
    assert (part.adapter, part.weights) == (4 * 2792, 2792 / 2)
    # without adapters 28 x 2 bytes a token and block less
    assert activation_bytes(TOY, CPT, None) == activation_bytes(TOY, CPT, LORA) - 16 * 56
    assert training_memory(TOY, CPT.model_copy(update={"dtype": "float32"}), None, 1, sharded=False).weights == 0


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
    # each adds up the gradients of all in buckets of 4 bytes a number
    assert (whole.weights, whole.adapter, whole.activations) == (5584, 512 * 20, 15232)
    assert whole.total == pytest.approx((5584 + 10240 + 15232) * 1.05 + 1e9)
    assert training_memory(TOY, CPT, LORA, 1, sharded=False).adapter == 512 * 16
    divided = training_memory(TOY, CPT, LORA, 4, sharded=True)
    # two blocks of 576 weights are gathered at 2 bytes
    assert (divided.weights, divided.adapter, divided.activations) == (5584 / 4, 8192 / 4, 15232 + 2304)


def test_the_reference_of_rpo_is_asked_before_training_and_takes_no_memory_then():
    assert training_memory(TOY, RPO, LORA, 1, sharded=False).adapter == 512 * 16


def test_loading_takes_the_whole_base_on_each_gpu_and_its_share_where_it_is_divided_afterwards():
    whole = training_memory(TOY, CPT, LORA, 4, sharded=False)
    assert whole.loading == pytest.approx(5584 * 1.05 + 1e9)
    # a quarter, and the head of 100x8 that comes last from the first process
    divided = training_memory(TOY, CPT, LORA, 4, sharded=True)
    assert divided.loading == pytest.approx((5584 + 5584 / 4 + 1600) * 1.05 + 1e9)
    quantized = CPT.model_copy(update={"quantization": "nf4"})
    # in 4 bits 3874.28125: one layer of 8x16 in 16 bits while it is quantized, or afterwards the share
    whole = training_memory(TOY, quantized, LORA, 4, sharded=False)
    assert whole.loading == pytest.approx((3874.28125 + 256) * 1.05 + 1e9)
    divided = training_memory(TOY, quantized, LORA, 4, sharded=True)
    assert divided.loading == pytest.approx((3874.28125 + 3874.28125 / 4) * 1.05 + 1e9)
    large = Memory(1.0, 1.0, 1.0, sharded=True, loading=5e9)
    assert (large.peak, Memory(9e9, 0, 0, sharded=True, loading=5e9).peak) == (5e9, 9e9 * 1.05 + 1e9)


def test_experts_are_counted_and_not_shrunk_by_nf4():
    # two blocks whose feed-forward is 4 experts of 3 x 8x6 and a router of 8x4, and a shared one of 3 x 8x6
    sparse = replace(TOY, experts=4, expert_intermediate=6, expert_layers=2, shared_intermediate=6)
    assert sparse.linear_parameters == 2 * (8 * 8 + 2 * 8 * 4 + 8 * 8 + 3 * 8 * 6)
    assert sparse.expert_parameters == 2 * 4 * (3 * 8 * 6 + 8)
    assert weight_bytes(sparse, "nf4", "bfloat16") == pytest.approx(
        sparse.linear_parameters * (0.5 + 1 / 64 + 4 / 16384) + 2 * (1640 + sparse.expert_parameters)
    )


def test_answering_counts_every_sample_and_model_of_a_batch_and_the_scores_of_reading():
    asked = Preferences(model="cpt", data="me/x@v1", batch_size=8, samples=8, max_new_tokens=100)
    # 64 rows of 400 + 100 tokens and 1,100 of the examples, each of 2 blocks x 4 numbers x keys and values x 2 bytes;
    # scores of 3,200 tokens x 2 heads x 1,500 tokens in 14 bytes
    assert answering_memory(TOY, asked, [LORA]).activations == (64 * 500 + 1100) * 32 + 3200 * 2 * 1500 * 14
    models = Evaluate(models={"a": "base", "b": "cpt", "c": "rpo"}, benchmarks=("igakuqa",), batch_size=8)
    # 24 rows of 400 + 1,024 tokens, the examples once a model
    memory = answering_memory(TOY, models, [LORA, LORA], 3)
    assert memory.activations == (24 * 1424 + 3 * 1100) * 32 + 3200 * 2 * 1500 * 14
    many = models.model_copy(update={"batch_size": 512})
    # no more than 16,384 tokens are read at once
    unbounded = answering_memory(TOY, many, [LORA, LORA], 3)
    assert unbounded.activations == pytest.approx((512 * 3 * 1424 + 3300) * 32 + 16384 * 2 * 1500 * 14)


def test_a_batch_of_answers_takes_what_the_gpu_has_left_and_at_least_one_question():
    many = Evaluate(models={"a": "base", "b": "cpt", "c": "rpo"}, benchmarks=("igakuqa",), batch_size=512)
    whole = (5584 + 2 * 512 * 4) * 1.05 + 1e9
    # of 100 MB beside the weights 60 for keys and values; ten for scores are less than those of one question
    found = answering_memory(TOY, many, [LORA, LORA], 3, whole + 1e8)
    assert found.activations == pytest.approx(6e7 + 3300 * 32 + 400 * 2 * 1500 * 14)
    assert found.total < whole + 1e8
    none = answering_memory(TOY, many, [LORA, LORA], 3, whole)
    assert none.activations == pytest.approx((3 * 1424 + 3300) * 32 + 400 * 2 * 1500 * 14)
    assert none.total > whole


def test_disk_holds_the_base_and_a_merge_once_more():
    assert disk_bytes(TOY, "cpt", "float32") == pytest.approx(2792 * 2 * 1.05)
    assert disk_bytes(TOY, "merge", "float32") == pytest.approx(2792 * 6 * 1.05)
    assert disk_bytes(TOY, "evaluate", "float32", models=2) == pytest.approx(2792 * 4 * 1.05)


def test_disk_of_a_full_training_holds_three_checkpoints_with_moments_and_the_model_that_is_written():
    full = Cpt(lora=None, max_steps=2)
    assert disk_bytes(TOY, "cpt", "bfloat16", full=full) == pytest.approx(2792 * (2 + 3 * 12 + 2) * 1.05)
    lion = full.model_copy(update={"optim": "lion_8bit"})
    assert disk_bytes(TOY, "cpt", "bfloat16", full=lion) == pytest.approx(2792 * (2 + 3 * 5 + 2) * 1.05)


def test_an_update_and_the_work_that_a_crash_costs():
    a100, cpu = machine("a100x4"), machine("cpu")
    settings = CPT.model_copy(update={"total_batch_size": 8, "save_steps": 10})
    # 8 rows of 16 tokens, 3 x 4416 operations each, on four cards
    update = seconds_an_update(TOY, settings, a100)
    assert update == pytest.approx(8 * 16 * 3 * 4416 / (312e12 * 0.35) / 4)
    assert seconds_an_update(TOY, settings, cpu) is None
    timed = settings.model_copy(update={"save_minutes": 30.0})
    assert seconds_between_checkpoints(timed, 60.0) == 600
    assert seconds_between_checkpoints(timed, 600.0) == 30 * 60 + 600


def test_the_reference_answers_once_for_each_pair_however_many_epochs_there_are():
    twice = RPO.model_copy(update={"num_train_epochs": 2.0})
    assert operations_per_token(TOY, twice) == 3.5 * 4416


def test_eight_bit_moments_save_six_bytes_a_number():
    eight = CPT.model_copy(update={"optim": "adamw_8bit"})
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
