"""What a training needs: bytes on each GPU and operations, by the formulas of docs/cost.md."""

from dataclasses import dataclass

from medllm.recipe.bases import Shape
from medllm.recipe.hardware import Machine
from medllm.recipe.settings import Evaluate, Lora, Preferences, Rpo, Training

BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}

NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a quantized weight: half, one scale byte for 64, one float32 for 256 scales (double quantization)."""

TRAINED = 4 + 4 + 8
"""Bytes of a trained number: itself, its gradient and AdamW's two moments, all float32."""

TRAINED_8BIT = 4 + 4 + 2
"""The same with 8-bit moments."""

KEPT = {"bfloat16": (28, 8, 4, 10), "float16": (28, 8, 4, 10), "float32": (16, 8, 8, 16)}
"""Bytes that one block keeps of one token for the backward pass, for each number of the hidden size, the queries, the
keys and the feed-forward: measured on Qwen2 blocks with float32 adapters (tests/recipe/test_measured.py)."""

KEPT_BY_RANK = 28
"""The same for each rank of the seven adapters of a block."""

LOGITS = 1e9
"""Bytes that the loss may take at most: TRL computes it tile by tile."""

DISK_MARGIN = 1.05
"""Room for adapters, data, logs and checkpoints [assumed]."""

PROMPT = 1500
"""Tokens of a question with three explained examples [assumed; the paper's own examples are shorter]."""

CONTEXT = 1e9
"""CUDA's own memory [assumed]."""

FRAGMENTS = 1.05
"""What the allocator loses [assumed]."""

SHARE_OF_PEAK = {"none": 0.35, "nf4": 0.25}
"""Part of a GPU's peak that training reaches [assumed: no run of ours on an A100 stands behind it]."""


@dataclass(frozen=True)
class Memory:
    """Bytes on each GPU, by what holds them."""

    weights: float
    adapter: float
    """Trained numbers, gradients and moments; for RPO also the frozen copy that is the reference."""
    activations: float
    """What is kept for the backward pass; when answering, the keys and values of the texts at work."""
    sharded: bool
    """Whether weights and trained numbers are divided over the GPUs (FSDP) instead of held by each."""

    @property
    def total(self) -> float:
        """All of it, with CUDA's context and what the allocator loses."""
        return (self.weights + self.adapter + self.activations) * FRAGMENTS + CONTEXT


def weight_bytes(shape: Shape, quantization: str, dtype: str) -> float:
    """Bytes of the frozen base: NF4 takes the blocks' linear layers, the rest keeps its numbers."""
    return shape.linear_parameters * _linear_bytes(quantization, dtype) + shape.other_parameters * BYTES[dtype]


def load_bytes(shape: Shape, quantization: str, dtype: str) -> float:
    """Bytes that one GPU holds when the base has just been loaded, before anything is divided.

    Every process loads the whole base onto its GPU; in NF4 one layer is there in 16 bits too while it is quantized.
    """
    layer = shape.hidden * shape.intermediate * BYTES[dtype] if quantization == "nf4" else 0.0
    return (weight_bytes(shape, quantization, dtype) + layer) * FRAGMENTS + CONTEXT


def disk_bytes(shape: Shape, stage: str, dtype: str) -> float:
    """Bytes on disk: the base as it is published (16 bits a number), and a merge writes the whole model once more."""
    base = weight_bytes(shape, "none", "bfloat16")
    return (base + weight_bytes(shape, "none", dtype) if stage == "merge" else base) * DISK_MARGIN


def _linear_bytes(quantization: str, dtype: str) -> float:
    return NF4 if quantization == "nf4" else BYTES[dtype]


def trainable_parameters(shape: Shape, lora: Lora) -> int:
    """Numbers that are learnt."""
    return shape.lora_parameters(lora.r, lora.target_modules)


def activation_bytes(shape: Shape, settings: Training, lora: Lora) -> float:
    """Bytes kept between forward and backward for one micro-batch, and the largest layer's 16-bit copy for NF4."""
    tokens = _rows(settings) * settings.per_device_batch_size * settings.max_length
    width = BYTES[settings.dtype]
    sizes = (shape.hidden, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim, shape.intermediate)
    kept = sum(size * each for size, each in zip(sizes, KEPT[settings.dtype], strict=True))
    block = tokens * (kept + KEPT_BY_RANK * lora.r)
    between = tokens * width * shape.hidden * shape.layers
    held = between + block if settings.gradient_checkpointing else shape.layers * block
    unpacked = shape.hidden * shape.intermediate * width if settings.quantization == "nf4" else 0
    return held + unpacked + min(tokens * shape.vocabulary * 4.0, LOGITS)


def training_memory(shape: Shape, settings: Training, lora: Lora, gpus: int, *, sharded: bool) -> Memory:
    """Bytes on each GPU while training."""
    parts = gpus if sharded else 1
    each = TRAINED if settings.optimizer == "adamw" else TRAINED_8BIT
    reference = 4 if isinstance(settings, Rpo) else 0
    adapter = trainable_parameters(shape, lora) * (each + reference)
    weights = weight_bytes(shape, settings.quantization, settings.dtype)
    # FSDP gathers the block at work and the next one.
    gathered = (
        2 * shape.linear_parameters / shape.layers * _linear_bytes(settings.quantization, settings.dtype)
        if sharded
        else 0
    )
    return Memory(weights / parts, adapter / parts, activation_bytes(shape, settings, lora) + gathered, sharded)


def best_memory(shape: Shape, settings: Training, lora: Lora, machine: Machine) -> Memory:
    """Bytes on each GPU in the simplest way that fits: whole on each, else divided over all."""
    whole = training_memory(shape, settings, lora, machine.count, sharded=False)
    if machine.gpu is None or machine.count == 1 or whole.total <= machine.gpu.memory_gb * 1e9:
        return whole
    return training_memory(shape, settings, lora, machine.count, sharded=True)


def answering_memory(shape: Shape, settings: Preferences | Evaluate, loras: list[Lora]) -> Memory:
    """Bytes on a GPU while one base answers with each of its adapters, batch by batch."""
    room = settings.max_new_tokens
    tokens = PROMPT + (room if isinstance(room, int) else max(room.plain, room.explain))
    each = 2 * shape.layers * shape.kv_heads * shape.head_dim * BYTES[settings.dtype]
    adapters = sum(trainable_parameters(shape, lora) for lora in loras) * 4.0
    weights = weight_bytes(shape, settings.quantization, settings.dtype)
    return Memory(weights, adapters, settings.batch_size * tokens * each, sharded=False)


def operations_per_token(shape: Shape, settings: Training) -> float:
    """Floating-point operations to learn from one token, with a frozen base."""
    multiplied = shape.linear_parameters + shape.embedding
    forward = 2.0 * multiplied + 2.0 * settings.max_length * shape.heads * shape.head_dim * shape.layers
    # forward, gradients through (but not of) the frozen weights, and once more where activations were not kept
    passes = 3 if settings.gradient_checkpointing else 2
    return forward * (passes + (1 if isinstance(settings, Rpo) else 0))


def gpu_hours(operations: float, machine: Machine, quantization: str) -> float | None:
    """Hours of one GPU for so many operations; none where there is no GPU."""
    if machine.gpu is None:
        return None
    return operations / (machine.gpu.tflops * 1e12 * SHARE_OF_PEAK[quantization]) / 3600


def _rows(settings: Training) -> int:
    # A pair is two rows: the chosen and the rejected answer go through the model together.
    return 2 if isinstance(settings, Rpo) else 1
