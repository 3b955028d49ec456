"""Rules between the blocks of a recipe; each rule is a named function that yields faults."""

import re
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

from medllm.exam.benchmarks import CATALOGUE
from medllm.recipe.dependencies import Use, stages_of, uses
from medllm.recipe.errors import RecipeFault, did_you_mean
from medllm.recipe.exams import first_day, known_exams
from medllm.recipe.hardware import machine, machine_names
from medllm.recipe.settings import KINDS, STAGES, Recipe, Reference, Stage, Training, parse_reference
from medllm.recipe.training import NAMED

Rule = Callable[[Recipe], Iterator[RecipeFault]]


def sources_exist(recipe: Recipe) -> Iterator[RecipeFault]:
    """Every source is a stage above, a repository at a revision, or a folder that exists or that a command writes."""
    yield from _base_exists(recipe)
    for stage in stages_of(recipe):
        for use in uses(recipe, stage):
            if use.wanted != "exam" and use.place != "base" and (text := _source_fault(recipe, stage, use)):
                yield RecipeFault(use.place, text)
    for name, exam in recipe.exams.items():
        if text := _outside_fault(recipe, parse_reference(exam.source)):
            yield RecipeFault(f"exams.{name}", text)


def _base_exists(recipe: Recipe) -> Iterator[RecipeFault]:
    reference = parse_reference(recipe.base)
    if reference.where not in ("hub", "folder"):
        yield RecipeFault("base", f"`{recipe.base}` is not a model. Write `ORG/NAME@REVISION` or `./folder`.")
    elif text := _outside_fault(recipe, reference):
        yield RecipeFault("base", text)


def _source_fault(recipe: Recipe, stage: Stage, use: Use) -> str | None:
    reference = parse_reference(use.source)
    if reference.where == "stage":
        return _stage_fault(recipe, stage, use)
    if reference.where == "base":
        return None if use.wanted == "model" else "`base` is a model; this key needs a dataset."
    if reference.where == "api":
        return (
            None
            if stage == "evaluate"
            else f"`{use.source}` can only be used in `evaluate`: its weights are not available."
        )
    return _outside_fault(recipe, reference, made=_made_above(recipe, stage, use))


def _stage_fault(recipe: Recipe, stage: Stage, use: Use) -> str | None:
    named: Stage = next(one for one in STAGES if one == use.source)
    there = f"Available: {', '.join(_made_above(recipe, stage, use)) or 'nothing'}."
    if named == stage:
        return f"`{named}` cannot be its own input. {there}"
    if STAGES.index(named) > STAGES.index(stage):
        return f"`{named}` runs after `{stage}` and cannot be its input. {there}"
    if getattr(recipe, named) is None:
        return f"this recipe has no stage `{named}`. Add a `{named}:` block, or name a repository. {there}"
    if KINDS[named] != use.wanted:
        return f"`{named}` is a {KINDS[named]}; this key needs a {use.wanted}. {there}"
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
        return f"Unknown source `{reference.text}`. {near} Or write `ORG/NAME@REVISION` or `./folder`."
    if reference.revision is None:
        return f"`{reference.text}` has no revision. Write `{reference.text}@main`, a tag or, best, a commit."
    return None


def exams_are_known(recipe: Recipe) -> Iterator[RecipeFault]:
    """Every exam is in the catalogue or under `exams`."""
    for stage in stages_of(recipe):
        for use in uses(recipe, stage):
            if use.wanted == "exam" and use.source not in known_exams(recipe):
                mend = did_you_mean(use.source, known_exams(recipe))
                yield RecipeFault(use.place, f"Unknown exam `{use.source}`. {mend}")


def exam_is_held_out(recipe: Recipe) -> Iterator[RecipeFault]:
    """Every exam of `evaluate` is held out of corpus and preferences."""
    asked = recipe.evaluate.benchmarks if recipe.evaluate else ()
    for stage, settings in (("corpus", recipe.corpus), ("preferences", recipe.preferences)):
        if settings is None or (
            stage == "preferences" and recipe.corpus and settings.held_out == recipe.corpus.held_out
        ):
            continue  # a list that comes from the corpus is reported there
        for name in asked:
            if name not in (settings.held_out or ()):
                yield RecipeFault(f"{stage}.held_out", f"`evaluate` asks `{name}`, which is not held out. Add it here.")


def cutoff_precedes_exams(recipe: Recipe) -> Iterator[RecipeFault]:
    """Every cutoff is before the first exam of `evaluate`."""
    if recipe.evaluate is None:
        return
    for name in recipe.evaluate.benchmarks:
        first = first_day(recipe, name)
        if first is None and name in recipe.exams and name not in CATALOGUE:
            yield RecipeFault(
                f"exams.{name}", "the day of its first exam is missing. Write `{source: ..., first: 2018-02-10}`."
            )
        elif first is not None and (asked := _first_asked(recipe, first)):
            yield from (RecipeFault(place, _late(name, day, asked)) for place, day in _cutoffs(recipe) if day >= asked)


def _first_asked(recipe: Recipe, first: date) -> date:
    years = recipe.evaluate.years if recipe.evaluate else None
    return max(first, date(min(years), 1, 1)) if years else first


def _cutoffs(recipe: Recipe) -> Iterator[tuple[str, date]]:
    yield "cutoff", recipe.cutoff
    for stage, settings in (("corpus", recipe.corpus), ("preferences", recipe.preferences)):
        if settings and settings.cutoff and settings.cutoff != recipe.cutoff:
            yield f"{stage}.cutoff", settings.cutoff


def _late(name: str, cutoff: date, first: date) -> str:
    mend = "Set it earlier, or limit `years` to later exams."
    return f"{cutoff} is not before the first `{name}` exam asked ({first}). {mend}"


def training_has_an_end(recipe: Recipe) -> Iterator[RecipeFault]:
    """Each training has either num_train_epochs or max_steps."""
    for stage, settings in (("cpt", recipe.cpt), ("rpo", recipe.rpo)):
        if settings and (settings.num_train_epochs is None) == (settings.max_steps is None):
            yield RecipeFault(stage, "give exactly one of `num_train_epochs` and `max_steps`.")


def adapter_has_a_shape(recipe: Recipe) -> Iterator[RecipeFault]:
    """RPO on the base needs an adapter of its own; a merge needs an adapter."""
    if recipe.rpo and recipe.rpo.model == "base" and recipe.rpo.lora is None:
        yield RecipeFault("rpo.lora", "`base` has no adapter to train further. Write `lora: {r: 64, lora_alpha: 128}`.")
    if recipe.merge and recipe.merge.model == "base":
        yield RecipeFault("merge.model", "`base` has no adapter to merge. Name `cpt` or `rpo`.")


def samples_differ(recipe: Recipe) -> Iterator[RecipeFault]:
    """Several samples need a temperature above 0: greedy samples are identical."""
    for stage, settings in (("preferences", recipe.preferences), ("evaluate", recipe.evaluate)):
        if settings and settings.samples > 1 and settings.temperature == 0:
            yield RecipeFault(
                f"{stage}.samples", f"{settings.samples} samples at temperature 0 are identical. Set a temperature."
            )


def ablations_have_own_names(recipe: Recipe) -> Iterator[RecipeFault]:
    """No row of the ablation table has the name of a model under evaluate.models."""
    for name in recipe.ablations:
        if recipe.evaluate and name in recipe.evaluate.models:
            yield RecipeFault(f"ablations.{name}", f"`{name}` is already the name of a row, under evaluate.models.")


def machines_are_known(recipe: Recipe) -> Iterator[RecipeFault]:
    """Each `run_on` is a known machine, and a batch divides evenly over its devices."""
    for stage in stages_of(recipe):
        settings = getattr(recipe, stage)
        name = getattr(settings, "run_on", None)
        on = machine(name) if name else None
        if name and on is None:
            yield RecipeFault(f"{stage}.run_on", f"Unknown machine `{name}`. {did_you_mean(name, machine_names())}")
        if isinstance(settings, Training):
            nodes = recipe.slurm.nodes
            at_once = settings.per_device_train_batch_size * (on.count if on else 1) * nodes
            if settings.total_batch_size % at_once:
                mend = f"Use a multiple of {at_once}."
                text = f"{settings.total_batch_size} rows do not divide over {at_once} at once. {mend}"
                yield RecipeFault(f"{stage}.total_batch_size", text)
            if on and on.gpu and not on.gpu.bfloat16 and settings.dtype == "bfloat16":
                yield RecipeFault(f"{stage}.dtype", f"{on.name} cannot compute in bfloat16. Set `dtype: float16`.")


def trainings_can_be_divided(recipe: Recipe) -> Iterator[RecipeFault]:
    """FSDP2 can divide the training, and every layer can take an adapter; checked before the base is loaded."""
    for stage, settings in (("cpt", recipe.cpt), ("rpo", recipe.rpo)):
        if settings is None:
            continue
        divided = _is_divided(recipe, settings.accelerate)
        if divided and settings.optim != "adamw_torch":
            text = f"`{settings.optim}` cannot be divided by FSDP2. Set `optim: adamw_torch`, or `accelerate: ddp`."
            yield RecipeFault(f"{stage}.optim", text)
        if divided and settings.quantization == "nf4" and settings.dtype != "bfloat16":
            text = f"FSDP2 would cast the 4-bit base, stored as {settings.dtype}, to bfloat16. Set `dtype: bfloat16`."
            yield RecipeFault(f"{stage}.dtype", text)
        if settings.lora and any(name.rsplit(".", 1)[-1] == "lm_head" for name in settings.lora.target_modules):
            yield RecipeFault(
                f"{stage}.lora.target_modules", "`lm_head` takes no adapter here: the loss is computed in tiles."
            )


def _is_divided(recipe: Recipe, accelerate: str | None) -> bool:
    """Return whether FSDP divides the model, as `accelerate` or its config file sets."""
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


def broken_rules(recipe: Recipe) -> list[RecipeFault]:
    """Apply every rule to a recipe whose single values are valid."""
    return [fault for rule in RULES for fault in rule(recipe)]
