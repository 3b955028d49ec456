"""The teachers that an output descends from, through stages and across recipes, and the exams that they may know."""

from collections.abc import Iterable, Mapping
from typing import Any

from medllm.errors import HubError
from medllm.hub import Artifact, Hub, Input, Provenance
from medllm.pipeline.plan import BuildPlan, StagePlan
from medllm.recipe import Recipe
from medllm.recipe.base import STAGES, Stage, parse_reference
from medllm.recipe.settings import Teach
from medllm.recipe.teacher_rules import describe_teacher, exam_days
from medllm.recipe.teaching import exams_it_may_know

Teacher = dict[str, Any]
"""One teacher as provenance has it: `model`, `revision`, `cutoff` and `is_itself`."""


def ancestors_of(plan: BuildPlan, item: StagePlan) -> list[StagePlan]:
    """List the item and everything it is built from, in build order."""
    wanted = {item.stage}
    for earlier in reversed(plan.items):
        if earlier.stage in wanted:
            wanted |= {source.reference for source in earlier.inputs if source.reference in STAGES}
    return [other for other in plan.items if other.stage in wanted]


def teachers_of(plan: BuildPlan, item: StagePlan, made: Mapping[Stage, Artifact], hub: Hub) -> tuple[Teacher, ...]:
    """Find the teachers of an output: those of the recipe's own `teach`, and those that its other sources record.

    A teacher is known by name and revision; one that two sources date differently counts with the later cutoff.
    """
    named: list[Teacher] = []
    for step in ancestors_of(plan, item):
        if isinstance(step.settings, Teach):
            named.append(_own(plan.recipe, step, step.settings, made))
        for source in step.inputs:
            if source.reference not in STAGES and not _is_exam(plan.recipe, source):
                named += _recorded(plan, source, hub)
    by_name: dict[tuple[str, str | None], Teacher] = {}
    for teacher in named:
        key = teacher["model"], teacher["revision"]
        before = by_name.get(key)
        if before is None or _last_day(teacher) > _last_day(before):
            by_name[key] = teacher
    return tuple(by_name.values())


def _own(recipe: Recipe, step: StagePlan, settings: Teach, made: Mapping[Stage, Artifact]) -> Teacher:
    """Describe the recipe's teacher: by its repository and commit where it has one, else as the recipe names it."""
    name, revision = settings.name, getattr(settings.model, "revision", None)
    source = next((source for source in step.inputs if source.reference == settings.reference), None)
    if source is not None:
        artifact = made.get(source.reference)  # type: ignore[call-overload]  # only stages are among the keys
        name = source.repo_id or ((recipe.base or name) if name == "base" else name)
        revision = artifact.revision if artifact else source.commit
    known = {"model": name, "revision": revision, "cutoff": str(settings.teacher_cutoff)}
    return {**known, "is_itself": settings.is_itself}


def _last_day(teacher: Teacher) -> str:
    """Return the cutoff in an order in which an unknown one comes last."""
    return str(teacher["cutoff"])


def _is_exam(recipe: Recipe, source: Input) -> bool:
    return source.reference in recipe.exams or bool(recipe.evaluate and source.reference in recipe.evaluate.benchmarks)


def _recorded(plan: BuildPlan, source: Input, hub: Hub) -> list[Teacher]:
    """Read the teachers that a source from elsewhere records of itself; none of one that medllm did not make."""
    try:
        if source.repo_id and source.kind and source.commit:
            provenance = hub.provenance(Artifact(source.repo_id, source.kind, source.commit))
        else:
            name = (plan.recipe.base or "") if source.reference == "base" else source.reference
            written = parse_reference(name)
            path = plan.resolver.folder(written) / Provenance.FILE if written.where == "folder" else None
            provenance = Provenance.read(path.read_text("utf-8"), str(path)) if path and path.is_file() else None
    except HubError:
        return []
    return [{**teacher, "is_itself": False} for teacher in provenance.teachers] if provenance else []


def teacher_facts(recipe: Recipe, teachers: Iterable[Teacher]) -> list[dict[str, Any]]:
    """Return what a card states of each teacher: with `warning`, a sentence about the exams that it may know, or none.

    The recipe's own model as its teacher knows what its base knows, so it brings nothing of an exam.
    """
    days = exam_days(recipe)
    facts = []
    for teacher in teachers:
        exams = {} if teacher["is_itself"] else exams_it_may_know(teacher["cutoff"], days)
        warning = describe_teacher(teacher["model"], teacher["cutoff"], exams) if exams else None
        facts.append({**teacher, "warning": warning})
    return facts
