"""What must hold between the blocks of a recipe; each rule is a named function that yields faults."""

import re
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

from medllm.exam.benchmarks import CATALOGUE
from medllm.recipe.dependencies import Use, stages_of, uses
from medllm.recipe.errors import Fault, did_you_mean
from medllm.recipe.exams import first_day, known_exams
from medllm.recipe.hardware import machine, machine_names
from medllm.recipe.settings import KINDS, STAGES, Recipe, Reference, Stage, Training, parse_reference
from medllm.recipe.training import NAMED

Rule = Callable[[Recipe], Iterator[Fault]]


def sources_exist(recipe: Recipe) -> Iterator[Fault]:
    """Every source is a stage above, a repository at a revision, or a folder that exists or that a command writes."""
    yield from _base_exists(recipe)
    for stage in stages_of(recipe):
        for use in uses(recipe, stage):
            if use.wanted != "exam" and use.place != "base" and (text := _source_fault(recipe, stage, use)):
                yield Fault(use.place, text)
    for name, exam in recipe.exams.items():
        if text := _outside_fault(recipe, parse_reference(exam.source)):
            yield Fault(f"exams.{name}", text)


def _base_exists(recipe: Recipe) -> Iterator[Fault]:
    reference = parse_reference(recipe.base)
    if reference.where not in ("hub", "folder"):
        yield Fault("base", f"`{recipe.base}` is no model. Write `ORG/NAME@REVISION` or `./folder`.")
    elif text := _outside_fault(recipe, reference):
        yield Fault("base", text)


def _source_fault(recipe: Recipe, stage: Stage, use: Use) -> str | None:
    reference = parse_reference(use.source)
    if reference.where == "stage":
        return _stage_fault(recipe, stage, use)
    if reference.where == "base":
        return None if use.wanted == "model" else "`base` is a model, and a dataset is wanted here."
    if reference.where == "api":
        return None if stage == "evaluate" else f"`{use.source}` can only be evaluated: its weights are not here."
    return _outside_fault(recipe, reference, made=_made_above(recipe, stage, use))


def _stage_fault(recipe: Recipe, stage: Stage, use: Use) -> str | None:
    named: Stage = next(one for one in STAGES if one == use.source)
    there = f"There is: {', '.join(_made_above(recipe, stage, use)) or 'nothing'}."
    if STAGES.index(named) >= STAGES.index(stage):
        return f"`{named}` is made after `{stage}`, from it: a circle. {there}"
    if getattr(recipe, named) is None:
        return f"`{named}` is not made in this recipe. Add a `{named}:` block, or name a repository. {there}"
    if KINDS[named] != use.wanted:
        return f"`{named}` is a {KINDS[named]}, and a {use.wanted} is wanted here. {there}"
    return None


def _made_above(recipe: Recipe, stage: Stage, use: Use) -> list[str]:
    above = [one for one in stages_of(recipe) if STAGES.index(one) < STAGES.index(stage) and KINDS[one] == use.wanted]
    return (["base"] if use.wanted == "model" else []) + list(above)


def _outside_fault(recipe: Recipe, reference: Reference, made: list[str] | None = None) -> str | None:
    if reference.where == "folder":
        if recipe.prepared_by or (recipe.folder / reference.text).exists():
            return None
        return f"folder {reference.text} not found (looked in {recipe.folder})."
    if reference.where != "hub":
        near = did_you_mean(reference.text, made or [])
        return f"`{reference.text}` is no source. {near} Or write `ORG/NAME@REVISION` or `./folder`."
    if reference.revision is None:
        return f"`{reference.text}` has no revision. Write `{reference.text}@main`, a tag or, best, a commit."
    return None


def exams_are_known(recipe: Recipe) -> Iterator[Fault]:
    """Every exam named is in the catalogue or under `exams`."""
    for stage in stages_of(recipe):
        for use in uses(recipe, stage):
            if use.wanted == "exam" and use.source not in known_exams(recipe):
                mend = did_you_mean(use.source, known_exams(recipe))
                yield Fault(use.place, f"`{use.source}` is no exam we know. {mend}")


def exam_is_held_out(recipe: Recipe) -> Iterator[Fault]:
    """What is asked at the end was hidden from corpus and preferences."""
    asked = recipe.evaluate.benchmarks if recipe.evaluate else ()
    for stage, settings in (("corpus", recipe.corpus), ("preferences", recipe.preferences)):
        if settings is None or (
            stage == "preferences" and recipe.corpus and settings.held_out == recipe.corpus.held_out
        ):
            continue  # what is taken over from the corpus is told there
        for name in asked:
            if name not in (settings.held_out or ()):
                yield Fault(f"{stage}.held_out", f"`{name}` is asked under `evaluate` but not held out. Add it here.")


def cutoff_precedes_exams(recipe: Recipe) -> Iterator[Fault]:
    """Nothing is learnt that is as young as an exam that is asked."""
    if recipe.evaluate is None:
        return
    for name in recipe.evaluate.benchmarks:
        first = first_day(recipe, name)
        if first is None and name in recipe.exams and name not in CATALOGUE:
            yield Fault(f"exams.{name}", "when was its first exam? Write `{source: ..., first: 2018-02-10}`.")
        elif first is not None and (asked := _first_asked(recipe, first)):
            yield from (Fault(place, _late(name, day, asked)) for place, day in _cutoffs(recipe) if day >= asked)


def _first_asked(recipe: Recipe, first: date) -> date:
    years = recipe.evaluate.years if recipe.evaluate else None
    return max(first, date(min(years), 1, 1)) if years else first


def _cutoffs(recipe: Recipe) -> Iterator[tuple[str, date]]:
    yield "cutoff", recipe.cutoff
    for stage, settings in (("corpus", recipe.corpus), ("preferences", recipe.preferences)):
        if settings and settings.cutoff and settings.cutoff != recipe.cutoff:
            yield f"{stage}.cutoff", settings.cutoff


def _late(name: str, cutoff: date, first: date) -> str:
    return f"{cutoff} is not before the first `{name}` exam asked ({first}). Set it earlier, or ask later `years` only."


def training_has_an_end(recipe: Recipe) -> Iterator[Fault]:
    """Each training says either num_train_epochs or max_steps."""
    for stage, settings in (("cpt", recipe.cpt), ("rpo", recipe.rpo)):
        if settings and (settings.num_train_epochs is None) == (settings.max_steps is None):
            yield Fault(stage, "say how long: `num_train_epochs` or `max_steps`, one of them.")


def adapter_has_a_shape(recipe: Recipe) -> Iterator[Fault]:
    """Without a CPT adapter to go on with, RPO needs one of its own."""
    if recipe.rpo and recipe.rpo.model == "base" and recipe.rpo.lora is None:
        yield Fault("rpo.lora", "`base` has no adapter to go on with. Write `lora: {r: 64, lora_alpha: 128}`.")
    if recipe.merge and recipe.merge.model == "base":
        yield Fault("merge.model", "`base` has nothing to merge. Name `cpt` or `rpo`.")


def samples_differ(recipe: Recipe) -> Iterator[Fault]:
    """Several samples at temperature 0 would be one answer copied."""
    for stage, settings in (("preferences", recipe.preferences), ("evaluate", recipe.evaluate)):
        if settings and settings.samples > 1 and settings.temperature == 0:
            yield Fault(f"{stage}.samples", f"{settings.samples} samples at temperature 0 are one. Set a temperature.")


def ablations_have_own_names(recipe: Recipe) -> Iterator[Fault]:
    """A row of the ablation table is not called like a model that is evaluated anyway."""
    for name in recipe.ablations:
        if recipe.evaluate and name in recipe.evaluate.models:
            yield Fault(f"ablations.{name}", f"`{name}` is already a row: it stands under evaluate.models.")


def machines_are_known(recipe: Recipe) -> Iterator[Fault]:
    """Each `run_on` is a machine of the table, and a batch divides evenly over its devices."""
    for stage in stages_of(recipe):
        settings = getattr(recipe, stage)
        name = getattr(settings, "run_on", None)
        on = machine(name) if name else None
        if name and on is None:
            yield Fault(f"{stage}.run_on", f"`{name}` is no machine we know. {did_you_mean(name, machine_names())}")
        if isinstance(settings, Training):
            nodes = recipe.slurm.nodes
            at_once = settings.per_device_train_batch_size * (on.count if on else 1) * nodes
            if settings.total_batch_size % at_once:
                text = f"{settings.total_batch_size} rows do not divide over {at_once} at once. Take a multiple."
                yield Fault(f"{stage}.total_batch_size", text)
            if on and on.gpu and not on.gpu.bfloat16 and settings.dtype == "bfloat16":
                yield Fault(f"{stage}.dtype", f"{on.name} cannot compute in bfloat16. Set `dtype: float16`.")


def trainings_can_be_divided(recipe: Recipe) -> Iterator[Fault]:
    """What FSDP2 cannot divide, and layers that get no adapter, are refused before the base is loaded."""
    for stage, settings in (("cpt", recipe.cpt), ("rpo", recipe.rpo)):
        if settings is None:
            continue
        divided = _is_divided(recipe, settings.accelerate)
        if divided and settings.optim != "adamw_torch":
            text = f"`{settings.optim}` cannot be divided by FSDP2. Set `optim: adamw_torch`, or `accelerate: ddp`."
            yield Fault(f"{stage}.optim", text)
        if divided and settings.quantization == "nf4" and settings.dtype != "bfloat16":
            text = f"FSDP2 would cast the 4-bit base, stored as {settings.dtype}, to bfloat16. Set `dtype: bfloat16`."
            yield Fault(f"{stage}.dtype", text)
        if settings.lora and any(name.rsplit(".", 1)[-1] == "lm_head" for name in settings.lora.target_modules):
            yield Fault(
                f"{stage}.lora.target_modules", "`lm_head` takes no adapter here: the loss is computed in tiles."
            )


def _is_divided(recipe: Recipe, accelerate: str | None) -> bool:
    """Whether FSDP divides the model: by its name, or by the file of accelerate that is named."""
    if accelerate is None or accelerate in NAMED:
        return accelerate == "fsdp2"
    for file in (recipe.folder / accelerate, Path(accelerate)):
        if file.is_file():
            return re.search(r"^distributed_type:\s*['\"]?FSDP", file.read_text("utf-8"), re.MULTILINE) is not None
    return False


RULES: tuple[Rule, ...] = (
    sources_exist,
    exams_are_known,
    exam_is_held_out,
    cutoff_precedes_exams,
    training_has_an_end,
    adapter_has_a_shape,
    samples_differ,
    ablations_have_own_names,
    machines_are_known,
    trainings_can_be_divided,
)


def broken_rules(recipe: Recipe) -> list[Fault]:
    """All faults of a recipe whose single values are sound."""
    return [fault for rule in RULES for fault in rule(recipe)]
