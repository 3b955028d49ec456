"""Whether a stage fits its machine, and the changes that make it fit: each one is computed, not guessed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from medllm.recipe.cost import Memory
from medllm.recipe.hardware import Machine, machine
from medllm.recipe.settings import Evaluate, Preferences, Training

Sized = Training | Preferences | Evaluate
Need = Callable[[Sized, Machine], Memory]
"""Function that counts the bytes of a stage with given settings on a given machine."""

ROOMIER = ("a100x1", "a100x2", "a100x4", "a100x8", "h200x1", "h200x2", "h200x4", "h200x8")
"""Machines to propose, in this order, after larger sizes of the recipe's own machine."""


@dataclass(frozen=True)
class Fit:
    """Memory of a stage on its machine, and the changes that make it fit."""

    memory: Memory
    fits: bool
    mends: tuple[str, ...]


def fit(settings: Sized, on: Machine, need: Need) -> Fit:
    """Compare the memory of a stage with its machine."""
    memory = need(settings, on)
    if _holds(on, memory):
        return Fit(memory, True, ())
    return Fit(memory, False, tuple(_mends(settings, on, need)))


def _holds(on: Machine, memory: Memory) -> bool:
    return on.gpu is None or memory.peak <= on.gpu.memory_gb * 1e9


def _mends(settings: Sized, on: Machine, need: Need) -> Iterator[str]:
    kind = on.name.split("x")[0]
    larger = [f"{kind}x{count}" for count in (2, 4, 8) if count > on.count]
    for name in (*larger, *ROOMIER):
        other = machine(name)
        if other and _more(other, on) and _holds(other, need(settings, other)):
            yield f"use {name}"
            break
    for key, value in _changes(settings):
        if _holds(on, need(settings.model_copy(update={key: value}), on)):
            yield f"set `{key}: {str(value).lower()}`"
    if isinstance(settings, Training):
        for length in (8192, 4096, 2048, 1024, 512):
            shorter = settings.model_copy(update={"max_length": length})
            if length < settings.max_length and _holds(on, need(shorter, on)):
                yield f"shorten max_length to {length}"
                break


def _changes(settings: Sized) -> Iterator[tuple[str, object]]:
    if settings.quantization == "none":
        yield "quantization", "nf4"
    if isinstance(settings, Training):
        if not settings.gradient_checkpointing:
            yield "gradient_checkpointing", True
        if settings.per_device_train_batch_size > 1:
            yield "per_device_train_batch_size", 1


def _more(other: Machine, than: Machine) -> bool:
    if other.gpu is None or than.gpu is None:
        return False
    return other.gpu.memory_gb * other.count > than.gpu.memory_gb * than.count


def too_much(stage: str, found: Fit, on: Machine) -> str:
    """Word why a stage does not fit, as `cpt: needs about 93 GB a GPU, a100x1 has 80: use a100x4`."""
    has = f"{on.gpu.memory_gb:.0f}" if on.gpu else "none"
    mends = ", or ".join(found.mends) or "no change of this recipe makes it fit: use a smaller base"
    loading = " while the base is loaded" if found.memory.loading > found.memory.total else ""
    return f"{stage}: needs about {found.memory.peak / 1e9:.0f} GB a GPU{loading}, `{on.name}` has {has}: {mends}."
