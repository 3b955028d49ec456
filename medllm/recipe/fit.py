"""Whether a training fits its machine, and when not, which change makes it fit: each mend is computed, not guessed."""

from collections.abc import Iterator
from dataclasses import dataclass

from medllm.recipe.bases import Shape
from medllm.recipe.cost import Memory, best_memory
from medllm.recipe.hardware import Machine, machine
from medllm.recipe.settings import Lora, Training

ROOMIER = ("a100x1", "a100x2", "a100x4", "a100x8", "h200x1", "h200x2", "h200x4", "h200x8")
"""Machines to propose, in this order, after larger sizes of the one that was named."""


@dataclass(frozen=True)
class Fit:
    """Memory on the named machine, and what to change when it is too much."""

    memory: Memory
    fits: bool
    mends: tuple[str, ...]


def fit(shape: Shape, settings: Training, lora: Lora, on: Machine) -> Fit:
    """Judge a training on a machine."""
    memory = best_memory(shape, settings, lora, on)
    if on.gpu is None or _holds(on, memory):
        return Fit(memory, True, ())
    return Fit(memory, False, tuple(_mends(shape, settings, lora, on)))


def _holds(on: Machine, memory: Memory) -> bool:
    return on.gpu is None or memory.total <= on.gpu.memory_gb * 1e9


def _mends(shape: Shape, settings: Training, lora: Lora, on: Machine) -> Iterator[str]:
    kind = on.name.split("x")[0]
    larger = [f"{kind}x{count}" for count in (2, 4, 8) if count > on.count]
    for name in (*larger, *ROOMIER):
        other = machine(name)
        if other and _more(other, on) and _holds(other, best_memory(shape, settings, lora, other)):
            yield f"use {name}"
            break
    if settings.quantization == "none" and _helps(shape, settings, lora, on, quantization="nf4"):
        yield "set `quantization: nf4`"
    if not settings.gradient_checkpointing and _helps(shape, settings, lora, on, gradient_checkpointing=True):
        yield "set `gradient_checkpointing: true`"
    if settings.per_device_batch_size > 1 and _helps(shape, settings, lora, on, per_device_batch_size=1):
        yield "set `per_device_batch_size: 1`"
    lengths = (length for length in (8192, 4096, 2048, 1024, 512) if length < settings.max_length)
    shorter = next((length for length in lengths if _helps(shape, settings, lora, on, max_length=length)), None)
    if shorter:
        yield f"shorten max_length to {shorter}"


def _more(other: Machine, than: Machine) -> bool:
    if other.gpu is None or than.gpu is None:
        return False
    return other.gpu.memory_gb * other.count > than.gpu.memory_gb * than.count


def _helps(shape: Shape, settings: Training, lora: Lora, on: Machine, **changes: object) -> bool:
    return _holds(on, best_memory(shape, settings.model_copy(update=changes), lora, on))


def too_much(stage: str, found: Fit, on: Machine) -> str:
    """Word what does not fit, as `cpt: needs about 93 GB a GPU, a100x1 has 80: use a100x4`."""
    has = f"{on.gpu.memory_gb:.0f}" if on.gpu else "none"
    mends = ", or ".join(found.mends) or "nothing in this recipe makes it fit: take a smaller base"
    return f"{stage}: needs about {found.memory.total / 1e9:.0f} GB a GPU, `{on.name}` has {has}: {mends}."
