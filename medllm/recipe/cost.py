"""Cost of a stage: tokens, bytes on each GPU, bytes on disk and operations, by the formulas of docs/cost.md."""

import math
from dataclasses import dataclass
from pathlib import Path

from medllm.recipe.base import parse_reference
from medllm.recipe.hardware import Machine, Shape
from medllm.recipe.settings import (
    Corpus,
    Cpt,
    DataSource,
    Evaluate,
    Grpo,
    Lora,
    Preferences,
    Recipe,
    Rpo,
    Sft,
    Teach,
    Training,
)
from medllm.recipe.training import ALL_LINEAR

BYTES_PER_TOKEN = 3.4
"""Qwen2.5's tokenizer on Japanese medical text: 2.97 on package inserts, 3.5 on case reports and exams, 3.9 on
encyclopedia paragraphs, measured."""

PLAIN = frozenset({".csv", ".html", ".htm", ".json", ".jsonl", ".md", ".txt"})
"""Files whose bytes are text; the size of others (parquet, PDF) does not give their text's."""


def trained_tokens(recipe: Recipe, settings: Cpt | Sft | Rpo | Grpo) -> int | None:
    """Count the tokens of a training, over all epochs; None when the recipe does not decide them.

    An upper bound for pairs and for steps: rows may be shorter than `max_length`.
    """
    rows = 2 if isinstance(settings, Rpo) else 1
    if settings.max_steps:
        return settings.max_steps * settings.total_batch_size * settings.max_length * rows
    if settings.num_train_epochs is None:
        return None
    if isinstance(settings, Cpt):
        size = corpus_tokens(recipe) if settings.data == "corpus" else None
        return None if size is None else int(size * settings.num_train_epochs)
    if isinstance(settings, Sft):
        sizes = [_source_tokens(recipe, source) for source in settings.data]
        return None if None in sizes else int(sum(size or 0 for size in sizes) * settings.num_train_epochs)
    if isinstance(settings, Grpo):
        asked = settings.questions
        each = settings.num_generations * settings.num_iterations * settings.max_length
        return None if asked is None else int(asked * each * settings.num_train_epochs)
    pairs = most_pairs(recipe) if settings.data == "preferences" else None
    return None if pairs is None else int(pairs * rows * settings.max_length * settings.num_train_epochs)


def corpus_tokens(recipe: Recipe) -> float | None:
    """Add up the tokens of the sources before any document is dropped; None when a size is unknown."""
    corpus = recipe.corpus
    if corpus is None:
        return None
    sizes = [_source_tokens(recipe, source) for source in corpus.data]
    if None in sizes:
        return None
    return sum(size or 0 for size in sizes) / (1 - _replayed(corpus))


def _replayed(corpus: Corpus) -> float:
    return corpus.replay.share if corpus.replay else 0.0


def _source_tokens(recipe: Recipe, source: DataSource) -> float | None:
    if source.tokens:
        return source.tokens
    if parse_reference(source.source).where != "folder":
        return None
    size = text_bytes(recipe.folder / source.source)
    if size is None:
        return None
    # An exam item with an explanation is written out once for each prompt.
    times = len(recipe.corpus.formats) if source.exam and recipe.corpus else 1
    return size / BYTES_PER_TOKEN * times


def text_bytes(folder: Path) -> int | None:
    """Add up the bytes of a folder's text files; None when it has other files, or none."""
    files = [path for path in (folder.rglob("*") if folder.is_dir() else [folder]) if path.is_file()]
    if not files or any(path.suffix not in PLAIN for path in files):
        return None
    return sum(path.stat().st_size for path in files)


def most_pairs(recipe: Recipe) -> int | None:
    """Compute the largest possible number of pairs; None when the number of questions is unknown."""
    settings = recipe.preferences
    if settings is None or settings.questions is None:
        return None
    return settings.questions * settings.pairs_per_question * len(settings.pairs)


BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}

NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a quantized weight: half, one scale byte for 64, one float32 for 256 scales (double quantization)."""

TRAINED = 4 + 4 + 8
"""Bytes of a trained number: itself, its gradient and AdamW's two moments, all float32."""

TRAINED_8BIT = 4 + 4 + 2
"""The same with 8-bit moments."""

TRAINED_BY = {
    **{"adamw_8bit": TRAINED_8BIT, "paged_adamw_8bit": TRAINED_8BIT, "lion_32bit": 4 + 4 + 4},
    **{"lion_8bit": 4 + 4 + 1, "adafactor": 4 + 4},
}
"""The same by optimizer, where it keeps less: Lion has one moment, Adafactor sums of rows and columns."""

GRADIENT = 4
"""Bytes of a trained number that no checkpoint holds."""

CHECKPOINTS = 3
"""Checkpoints on disk while one is written: TRL removes an older one afterwards."""

BUCKET = 4
"""Bytes of a trained number in the buckets in which several GPUs add up their gradients, when each holds the model."""

KEPT = {"bfloat16": (28, 8, 4, 10), "float16": (28, 8, 4, 10), "float32": (16, 8, 8, 16)}
"""Bytes that one block stores per token for the backward pass, for each element of the hidden state, the queries, the
keys and the feed-forward layer: measured on Qwen2 blocks with float32 adapters (tests/recipe/test_measured.py)."""

KEPT_BY_RANK = 28
"""The same for each rank of the seven adapters of a block."""

LOGITS = 1e9
"""Maximum bytes of the loss: TRL computes it tile by tile."""

DISK_MARGIN = 1.05
"""Factor for adapters, data, logs and checkpoints [assumed]."""

EXAMPLES, QUESTION = 1100, 400
"""Tokens of three explained examples, which all rows of a model share, and of a question [assumed]."""

PIECE = 16_384
"""Most tokens of prompts that a GPU reads at once."""

CACHE_SHARE, SCORES_SHARE = 0.6, 0.1
"""Shares of the memory beside the weights that answering takes for keys and values, and for attention scores."""

SCORE = 14
"""Bytes of an attention score during prefill on a GPU: once in 16 bits, in float32 alone, joined and normalised."""

CONTEXT = 1e9
"""Bytes of the CUDA context [assumed]."""

FRAGMENTS = 1.05
"""Factor for memory that the allocator loses to fragmentation [assumed]."""

SHARE_OF_PEAK = {"none": 0.35, "nf4": 0.25}
"""Share of a GPU's peak throughput that training reaches [assumed: not measured on an A100]."""


@dataclass(frozen=True)
class Memory:
    """Bytes on each GPU: weights, adapter and activations."""

    weights: float
    adapter: float
    """Bytes of trainable parameters, gradients and moments; for RPO also of the frozen reference adapter."""
    activations: float
    """Bytes stored for the backward pass; in generation, bytes of the key-value cache."""
    sharded: bool
    """Whether FSDP divides weights and trainable parameters over the GPUs; otherwise each GPU has all of them."""
    loading: float = 0.0
    """Most bytes while the base is loaded: every GPU has all of it, also where FSDP divides it, and then its share."""

    @property
    def total(self) -> float:
        """Return the bytes during a stage, with the CUDA context and fragmentation."""
        return (self.weights + self.adapter + self.activations) * FRAGMENTS + CONTEXT

    @property
    def peak(self) -> float:
        """Return the largest number of bytes on a GPU, while loading or later."""
        return max(self.total, self.loading)


def weight_bytes(shape: Shape, quantization: str, dtype: str) -> float:
    """Count the bytes of the frozen base: NF4 quantizes the blocks' linear layers, not experts and the rest."""
    kept = shape.other_parameters + shape.expert_parameters
    return shape.linear_parameters * _linear_bytes(quantization, dtype) + kept * BYTES[dtype]


def load_bytes(shape: Shape, quantization: str, dtype: str, shares: int = 1) -> float:
    """Count the most bytes on one GPU while the base is loaded and, for FSDP, divided into so many shares.

    Every process loads the whole base onto its GPU; in NF4 one layer is there in 16 bits too while it is quantized.
    Accelerate keeps the whole base until the GPU also has its share; in 16 bits it sends each tensor from the first
    process, the head last.
    """
    weights = weight_bytes(shape, quantization, dtype)
    beside = shape.hidden * shape.intermediate * BYTES[dtype] if quantization == "nf4" else 0.0
    if shares > 1:
        received = 0.0 if quantization == "nf4" else shape.embedding * BYTES[dtype]
        beside = max(beside, weights / shares + received)
    return (weights + beside) * FRAGMENTS + CONTEXT


def disk_bytes(shape: Shape, stage: str, dtype: str, *, models: int = 1, full: Training | None = None) -> float:
    """Count the bytes on disk: the base as published (16 bits a parameter), and for a merge the merged model.

    `models` counts the base and the full models that are read beside it. `full` is a training of all weights: it writes
    a model, and of its checkpoints, with weights and moments in float32, two are kept while a third is written.
    """
    read = models * weight_bytes(shape, "none", "bfloat16")
    written = weight_bytes(shape, "none", dtype) if stage == "merge" or full else 0.0
    checkpoints = CHECKPOINTS * shape.parameters * (TRAINED_BY.get(full.optim, TRAINED) - GRADIENT) if full else 0.0
    return (read + written + checkpoints) * DISK_MARGIN


def _linear_bytes(quantization: str, dtype: str) -> float:
    return NF4 if quantization == "nf4" else BYTES[dtype]


def trainable_parameters(shape: Shape, lora: Lora | None) -> int:
    """Count the trainable parameters; of modules that are trained whole, the embedding; all without an adapter."""
    if lora is None:
        return shape.parameters
    linear, blocks = shape.linear(), set(shape.linear())
    named = blocks & (blocks if ALL_LINEAR in lora.target_modules else set(lora.target_modules))
    adapters = shape.lora_parameters(lora.r, lora.target_modules)
    # A pattern that means some blocks only is counted as if it meant none.
    adapters += shape.layers * sum((lora.rank_pattern.get(name, lora.r) - lora.r) * sum(linear[name]) for name in named)
    lengths = shape.layers * sum(linear[name][1] for name in named) if lora.use_dora else 0
    tables = sum(shape.embedding for name in lora.modules_to_save if name.endswith("embed_tokens"))
    return adapters + lengths + tables


def activation_bytes(shape: Shape, settings: Training, lora: Lora | None) -> float:
    """Count the bytes stored for the backward pass of one micro-batch, and for NF4 the largest layer in 16 bits."""
    tokens = _rows(settings) * settings.per_device_train_batch_size * settings.max_length
    width = BYTES[settings.dtype]
    sizes = (shape.hidden, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim, shape.intermediate)
    kept = sum(size * each for size, each in zip(sizes, KEPT[settings.dtype], strict=True))
    block = tokens * (kept + KEPT_BY_RANK * (lora.r if lora else 0))
    between = tokens * width * shape.hidden * shape.layers
    held = between + block if settings.gradient_checkpointing else shape.layers * block
    unpacked = shape.hidden * shape.intermediate * width if settings.quantization == "nf4" else 0
    return held + unpacked + min(tokens * shape.vocabulary * 4.0, LOGITS)


def training_memory(shape: Shape, settings: Training, lora: Lora | None, gpus: int, *, sharded: bool) -> Memory:
    """Count the bytes on each GPU in a training."""
    parts = gpus if sharded else 1
    each = TRAINED_BY.get(settings.optim, TRAINED)
    buckets = BUCKET if gpus > 1 and not sharded else 0
    adapter = trainable_parameters(shape, lora) * (each + buckets)
    weights = weight_bytes(shape, settings.quantization, settings.dtype)
    # FSDP gathers the current block and the next one.
    gathered = (
        2 * shape.linear_parameters / shape.layers * _linear_bytes(settings.quantization, settings.dtype)
        if sharded
        else 0
    )
    active = activation_bytes(shape, settings, lora) + gathered
    loading = load_bytes(shape, settings.quantization, settings.dtype if lora else "float32", parts)
    if lora is None and settings.dtype == "float32":
        weights = 0.0  # they are among what is trained; in 16 bits autocast holds a copy of them
    return Memory(weights / parts, adapter / parts, active, sharded, loading)


def best_memory(shape: Shape, settings: Training, lora: Lora | None, machine: Machine) -> Memory:
    """Count the bytes on each GPU as `accelerate` asks, else in the simplest way that fits: DDP before FSDP."""
    whole = training_memory(shape, settings, lora, machine.count, sharded=False)
    alone = machine.gpu is None or machine.count == 1
    if alone or settings.accelerate == "ddp":
        return whole
    if settings.accelerate is None and machine.gpu and whole.total <= machine.gpu.memory_gb * 1e9:
        return whole
    return training_memory(shape, settings, lora, machine.count, sharded=True)


def answering_memory(
    shape: Shape,
    settings: Teach | Preferences | Evaluate,
    loras: list[Lora],
    models: int | None = None,
    gpu_bytes: float = math.inf,
) -> Memory:
    """Count the bytes on a GPU of `gpu_bytes` while one base answers with each of its adapters (`models` in all).

    A batch is `batch_size` questions, each for every model and sample, or as many as fit the share of the memory that
    the weights leave, at least one; the worked examples are held once a model. The scores of attention are those of the
    prompts that are read together.
    """
    asked = models if models is not None else max(len(loras), 1)
    if isinstance(settings, Evaluate):
        tokens = QUESTION + max(getattr(settings.max_new_tokens, prompt) for prompt in settings.prompts)
    else:
        tokens = QUESTION + settings.max_new_tokens
    adapters = sum(trainable_parameters(shape, lora) for lora in loras) * 4.0
    weights = weight_bytes(shape, settings.quantization, settings.dtype)
    left = gpu_bytes - (weights + adapters) * FRAGMENTS - CONTEXT
    row = tokens * 2 * shape.layers * shape.kv_heads * shape.head_dim * BYTES[settings.dtype]
    prompt = asked * settings.samples * row
    held = max(prompt, min(settings.batch_size * prompt, left * CACHE_SHARE)) + asked * EXAMPLES * row / tokens
    per_layer = QUESTION * shape.heads * (QUESTION + EXAMPLES) * SCORE
    scores = max(per_layer, min(settings.batch_size * per_layer, PIECE / QUESTION * per_layer, left * SCORES_SHARE))
    loading = load_bytes(shape, settings.quantization, settings.dtype)
    return Memory(weights, adapters, held + scores, sharded=False, loading=loading)


def operations_per_token(shape: Shape, settings: Training) -> float:
    """Count the floating-point operations of training on one token, with a frozen base."""
    multiplied = shape.linear_parameters + shape.embedding
    forward = 2.0 * multiplied + 2.0 * settings.max_length * shape.heads * shape.head_dim * shape.layers
    # forward, gradients through (but not of) the frozen weights, and once more where activations were not kept
    passes = 3 if settings.gradient_checkpointing else 2
    # The reference answers once for each pair, before the first update, however many epochs follow.
    reference = 1 / max(settings.num_train_epochs or 1, 1) if isinstance(settings, Rpo) else 0
    if isinstance(settings, Grpo):  # which first writes what it learns from, and asks the model at its start
        reference = 1 / settings.num_iterations + (settings.beta > 0)
    return forward * (passes + reference)


def seconds_an_update(shape: Shape, settings: Training, machine: Machine) -> float | None:
    """Estimate the seconds of one update with rows of full length; None without a GPU."""
    tokens = settings.total_batch_size * settings.max_length * _rows(settings)
    hours = gpu_hours(operations_per_token(shape, settings) * tokens, machine, settings.quantization)
    return None if hours is None else hours * 3600 / machine.count


def seconds_between_checkpoints(settings: Training, update: float) -> float:
    """Estimate the seconds of work that a crash loses at most, from `save_steps` and `save_minutes`."""
    by_steps = settings.save_steps * update
    minutes = getattr(settings, "save_minutes", None)
    return by_steps if minutes is None else min(by_steps, max(minutes * 60, update) + update)


def gpu_hours(operations: float, machine: Machine, quantization: str) -> float | None:
    """Estimate the hours of one GPU for a number of operations; None without a GPU."""
    if machine.gpu is None:
        return None
    return operations / (machine.gpu.tflops * 1e12 * SHARE_OF_PEAK[quantization]) / 3600


def _rows(settings: Training) -> int:
    # A pair is two rows: the chosen and the rejected answer go through the model together.
    return 2 if isinstance(settings, Rpo) else 1
