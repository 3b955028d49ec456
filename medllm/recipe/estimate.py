"""Dry run of `medllm check`: the output, machine and cost of each stage, and computed changes where it does not fit."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medllm.recipe.answering_notes import ENGINE_NOTES, describe_drawing, describe_exam, describe_rollouts, who_answers
from medllm.recipe.base import parse_reference
from medllm.recipe.cost import (
    Memory,
    answering_memory,
    best_memory,
    disk_bytes,
    gpu_hours,
    operations_per_token,
    seconds_an_update,
    seconds_between_checkpoints,
    trainable_parameters,
    trained_tokens,
    weight_bytes,
)
from medllm.recipe.dependencies import (
    hosts_of,
    is_full,
    loaded_together,
    lora_of,
    missing_folders,
    repo_id,
    stages_of,
    uses,
    weights_of,
)
from medllm.recipe.hardware import (
    DISK,
    Machine,
    Shape,
    cheapest_with_disk,
    known_shape,
    machine,
    refuse_unsupported,
    shape_from_config,
    shape_if_known,
)
from medllm.recipe.servers import takes_any_type
from medllm.recipe.settings import (
    KINDS,
    STAGES,
    Cpt,
    Evaluate,
    Grpo,
    Kind,
    Merge,
    Preferences,
    Recipe,
    Rounds,
    Rpo,
    Sft,
    Stage,
    Teach,
    Training,
)
from medllm.recipe.teacher_rules import teacher_warnings
from medllm.wording import number_of

Sized = Training | Teach | Preferences | Evaluate
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


def too_much(stage: str, fit: Fit, on: Machine) -> str:
    """Word why a stage does not fit, as `cpt: needs about 93 GB a GPU, a100x1 has 80: use a100x4`."""
    has = f"{on.gpu.memory_gb:.0f}" if on.gpu else "none"
    mends = ", or ".join(fit.mends) or "no change of this recipe makes it fit: use a smaller base"
    loading = " while the base is loaded" if fit.memory.loading > fit.memory.total else ""
    return f"{stage}: needs about {fit.memory.peak / 1e9:.0f} GB a GPU{loading}, `{on.name}` has {has}: {mends}."


SHARD = "to divide it, set `accelerate: fsdp2`"
"""Note for a training that needs FSDP: without it every GPU has the whole model."""


@dataclass(frozen=True)
class StageCost:
    """One stage of the plan; a figure that the recipe does not decide is None, never guessed."""

    stage: Stage
    repo: str
    kind: Kind
    uses: tuple[str, ...]
    machine: str | None = None
    trainable_parameters: int | None = None
    gb_a_gpu: float | None = None
    gb: dict[str, float] = field(default_factory=dict)
    gb_loading: float | None = None
    """Gigabytes on a GPU just after loading, when that is more than later."""
    gb_disk: float | None = None
    """Gigabytes on disk of the base, and for a merge of the merged model."""
    minutes_an_update: float | None = None
    minutes_between_checkpoints: float | None = None
    sharded: bool | None = None
    fits: bool | None = None
    tokens: int | None = None
    gpu_hours: float | None = None
    dollars: float | None = None
    too_much: str | None = None
    """Why the stage does not fit its GPUs, and the changes that make it fit."""
    too_little_disk: str | None = None
    """Why the stage does not fit the disk, and a machine that it fits."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class CostPlan:
    """The dry run of a recipe."""

    name: str
    base: str | None
    parameters: int | None
    steps: tuple[StageCost, ...]
    warnings: tuple[str, ...]
    missing: tuple[str, ...] = ()
    """Folders that `prepared_by` writes and that do not exist yet."""
    prepared_by: str | None = None
    hosts: tuple[str, ...] = ()
    """The servers that questions are sent to, each with the key that names it."""


def plan(recipe: Recipe, config: Path | None = None) -> CostPlan:
    """Estimate each stage of a recipe; `config` is the base's config.json when the base is not in the table."""
    loading = [s for s in stages_of(recipe) if any(use.place == "base" for use in uses(recipe, s))]
    any_type = all(takes_any_type(getattr(recipe, stage)) for stage in loading)
    base = recipe.base or ""
    beside = recipe.folder / base / "config.json"
    for given in (config, beside if parse_reference(base).where == "folder" and beside.is_file() else None):
        if given and not any_type:
            refuse_unsupported(given)
    known = shape_if_known if any_type else known_shape
    shape = shape_from_config(config) if config else known(base, recipe.folder)
    steps = tuple(_step(recipe, stage, shape) for stage in stages_of(recipe))
    warnings = [warning for step in steps for warning in (step.too_much, step.too_little_disk) if warning]
    warnings += teacher_warnings(recipe)
    missing = missing_folders(recipe)
    if shape is None and recipe.base and recipe.base not in missing:
        warnings.append(
            f"the shape of {recipe.base} is unknown, so costs are left out. Give its config.json with --config."
        )
    parameters = shape.parameters if shape else None
    return CostPlan(
        recipe.name, recipe.base, parameters, steps, tuple(warnings), missing, recipe.prepared_by, _hosts(recipe)
    )


def _hosts(recipe: Recipe) -> tuple[str, ...]:
    """Name each server and the keys that lead to it."""
    hosts: dict[str, list[str]] = {}
    for host in hosts_of(recipe):
        hosts.setdefault(host.name, []).append(host.place)
    return tuple(f"{name} ({', '.join(places)})" for name, places in hosts.items())


def _step(recipe: Recipe, stage: Stage, shape: Shape | None) -> StageCost:
    settings: Any = getattr(recipe, stage)
    on = machine(settings.run_on) if getattr(settings, "run_on", None) else None
    sources = tuple(dict.fromkeys(use.source for use in uses(recipe, stage) if use.place != "base"))
    facts: dict[str, Any] = {}
    if shape:
        match settings:
            case Cpt() | Sft() | Rpo() | Grpo():
                facts = _training(recipe, stage, settings, shape, on)
            case Rounds():
                facts = _rounds(recipe, settings, shape, on)
            case Preferences() | Evaluate():
                facts = _answering(recipe, stage, settings, shape, on)
            case Teach() if settings.is_itself:
                facts = _answering(recipe, stage, settings, shape, on)
        if stage == "merge":
            size = weight_bytes(shape, "none", settings.dtype) / 1e9
            facts = {"notes": (f"writes {_gb(size)}, shard by shard: memory of about one shard",)}
        facts |= _disk(recipe, stage, settings, shape, on)
    elif isinstance(settings, Evaluate):
        facts = {"notes": (describe_exam(settings),)}
    if isinstance(settings, Grpo):
        facts["notes"] = (*facts.get("notes", ()), describe_rollouts(settings))
    if isinstance(settings, Teach) and not settings.is_itself:
        facts = _teaching(recipe, settings, on)
    if isinstance(settings, Teach | Preferences | Evaluate):
        facts["notes"] = (*facts.get("notes", ()), *who_answers(recipe, settings))
    return StageCost(stage, repo_id(recipe, stage), KINDS[stage], sources, machine=on.name if on else None, **facts)


def _disk(recipe: Recipe, stage: Stage, settings: Any, shape: Shape, on: Machine | None) -> dict[str, Any]:  # noqa: ANN401
    """Count the disk space of a stage that reads models, and compare it with the Hub's machine."""
    if isinstance(settings, Rounds):
        settings = settings.rpo
    if not isinstance(settings, Training | Preferences | Evaluate | Merge):
        return {}
    full = settings if isinstance(settings, Training) and is_full(recipe, stage) else None
    named = {use.source for use in uses(recipe, stage) if use.wanted == "model"}
    models = {"base", *(weights_of(recipe, source) for source in named if source in STAGES)}
    need = disk_bytes(shape, stage, settings.dtype, models=len(models), full=full)
    facts: dict[str, Any] = {"gb_disk": round(need / 1e9, 1)}
    has = DISK.get(on.flavor or "") if on else None
    if has is not None and on and has * 1e9 < need:
        other = cheapest_with_disk(need)
        mend = f"use {other}" if other else "take a smaller base"
        facts["too_little_disk"] = (
            f"{stage}: needs about {_gb(need / 1e9)} of disk; `{on.flavor}` of the Hub has {has} GB: {mend}."
        )
    return facts


def _training(
    recipe: Recipe, stage: Stage, settings: Cpt | Sft | Rpo | Grpo, shape: Shape, on: Machine | None
) -> dict[str, Any]:
    lora = settings.lora or lora_of(recipe, settings.model)
    full = is_full(recipe, stage)
    if lora is None and not full:
        return {"notes": ("the size of the adapter is that of its start and unknown here",)}
    facts: dict[str, Any] = {"trainable_parameters": trainable_parameters(shape, lora)}
    if on:

        def need(changed: Sized, other: Machine) -> Memory:
            assert isinstance(changed, Training)
            return best_memory(shape, changed, lora, other)

        facts |= _fitting(stage, fit(settings, on, need), on)
        if update := seconds_an_update(shape, settings, on):
            facts["minutes_an_update"] = round(update / 60, 2)
            facts["minutes_between_checkpoints"] = round(seconds_between_checkpoints(settings, update) / 60, 1)
    notes = [SHARD] if facts.get("sharded") and settings.accelerate is None else []
    if full:
        notes.append("full fine-tuning: without `lora` all weights are trained; the result is a full model")
    tokens = trained_tokens(recipe, settings)
    each = operations_per_token(shape, settings)
    if tokens is None:
        notes.append(_rate(settings, each, on))
    else:
        facts |= {"tokens": tokens} | _hours(each * tokens, settings, on)
    return facts | {"notes": tuple(note for note in notes if note)}


def _rounds(recipe: Recipe, settings: Rounds, shape: Shape, on: Machine | None) -> dict[str, Any]:
    """Return the cost of one training, in which a round needs most memory, and what a round asks."""
    started = settings.rpo.model_copy(update={"model": settings.model})
    facts = _training(recipe, "rounds", started, shape, on)
    most = f"at most {number_of(settings.max_rounds, 'round')}; of each: {describe_drawing(settings.preferences)}"
    each = settings.evaluate.model_copy(update={"models": {"its model": settings.model}})
    asked = f"{describe_exam(each)} of {settings.exam}; costs are of one training"
    return facts | {"notes": (f"{most}; {asked}", *facts.get("notes", ()))}


def _teaching(recipe: Recipe, settings: Teach, on: Machine | None) -> dict[str, Any]:
    """Size a teacher with weights of its own: by its shape where it answers here and is known."""
    shape = shape_if_known(settings.reference, recipe.folder) if settings.reference else None
    if shape is None:
        return {"notes": (describe_drawing(settings),)}
    disk = disk_bytes(shape, "teach", settings.dtype) / 1e9
    return {**_answering(recipe, "teach", settings, shape, on), "gb_disk": round(disk, 1)}


def _answering(
    recipe: Recipe, stage: Stage, settings: Teach | Preferences | Evaluate, shape: Shape, on: Machine | None
) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    asked = list(settings.references.values()) if isinstance(settings, Evaluate) else [str(settings.model)]
    groups = loaded_together(recipe, [source for source in asked if parse_reference(source).where != "api"])
    if on and settings.engine in ENGINE_NOTES:

        def need(changed: Sized, other: Machine) -> Memory:
            assert not isinstance(changed, Training)
            each = other.gpu.memory_gb * 1e9 if other.gpu else math.inf
            memories = [
                answering_memory(
                    shape, changed, [lora for name in group if (lora := lora_of(recipe, name))], len(group), each
                )
                for group in groups or [[]]
            ]
            return max(memories, key=lambda memory: memory.peak)

        facts = _fitting(stage, fit(settings, on, need), on)
    notes = [describe_exam(settings) if isinstance(settings, Evaluate) else describe_drawing(settings)]
    if len(groups) > 1:
        notes.append(f"{len(groups)} models with weights of their own, in memory one after the other")
    return facts | {"notes": tuple(notes)}


def _fitting(stage: Stage, fit: Fit, on: Machine) -> dict[str, Any]:
    memory = fit.memory
    parts = {"weights": memory.weights, "adapter": memory.adapter}
    parts["activations" if stage in ("cpt", "sft", "rpo", "rounds", "grpo") else "cache"] = memory.activations
    return {
        "gb_a_gpu": round(memory.total / 1e9, 1),
        "gb": {name: round(part / 1e9, 1) for name, part in parts.items()},
        "gb_loading": round(memory.loading / 1e9, 1) if memory.loading > memory.total else None,
        "sharded": memory.sharded,
        "fits": fit.fits if on.gpu else None,
        "too_much": None if fit.fits else too_much(stage, fit, on),
    }


def _hours(operations: float, settings: Cpt | Sft | Rpo | Grpo, on: Machine | None) -> dict[str, Any]:
    hours = gpu_hours(operations, on, settings.quantization) if on else None
    if hours is None or on is None:
        return {}
    dollars = hours / on.count * on.dollars_an_hour if on.dollars_an_hour is not None else None
    return {"gpu_hours": round(hours, 2), "dollars": None if dollars is None else round(dollars, 2)}


def _rate(settings: Cpt | Sft | Rpo | Grpo, each: float, on: Machine | None) -> str:
    """Word the cost of a round number of tokens or pairs, for data of unknown size."""
    if isinstance(settings, Rpo):
        unit, operations = "1,000 pairs of full length", each * 2000 * settings.max_length
    else:
        unit, operations = "10 million tokens", each * 1e7
    if not (facts := _hours(operations, settings, on)):
        return ""
    price = "" if facts["dollars"] is None else f", ${facts['dollars']:.2f}"
    return f"data size not stated: {facts['gpu_hours']:.2f} GPU-hours{price} for {unit} and epoch"


def _gb(size: float) -> str:
    return f"{size:.{0 if size >= 10 else 1}f} GB"
