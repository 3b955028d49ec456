"""Rules of a recipe with a teacher: its cutoff against the days of the exams, private questions, and its cost."""

from collections.abc import Callable, Iterator
from datetime import date

from medllm.exam.benchmarks import CATALOGUE
from medllm.recipe.base import parse_reference
from medllm.recipe.dependencies import allows, askings_of, hosts_of
from medllm.recipe.errors import RecipeFault
from medllm.recipe.settings import Recipe
from medllm.recipe.teaching import UNKNOWN, exams_it_may_know


def first_day(recipe: Recipe, name: str) -> date | None:
    """Return the earliest day of an exam, or None when it is unknown."""
    own = recipe.exams.get(name)
    if own and own.first:
        return own.first
    return CATALOGUE[name].first if name in CATALOGUE else None


def first_asked(recipe: Recipe, first: date) -> date:
    """Return the earliest day of an exam that `evaluate` asks, which may leave out the first years."""
    years = recipe.evaluate.years if recipe.evaluate else None
    return max(first, date(min(years), 1, 1)) if years else first


def exam_days(recipe: Recipe) -> dict[str, date | None]:
    """Return the first day asked of each exam of `evaluate`, as far as the recipe and the catalogue have it.

    Of a set that is no sitting it is the day of its publication; of an own exam without `first` that of its years.
    """
    days: dict[str, date | None] = {}
    for name in recipe.evaluate.benchmarks if recipe.evaluate else ():
        first = first_day(recipe, name)
        if first is not None:
            first = first_asked(recipe, first)
        elif name in CATALOGUE:
            first = CATALOGUE[name].published
        elif name in recipe.exams and (years := recipe.exams[name].years):
            first = first_asked(recipe, date(min(years), 1, 1))
        days[name] = first
    return days


def describe_teacher(model: str, cutoff: str, exams: dict[str, date | None]) -> str:
    """Word what a teacher's cutoff means for the exams that it may know.

    >>> describe_teacher("big", "unknown", {"igakuqa": date(2018, 2, 10)})
    'the data cutoff of the teacher big is not stated, so it may know igakuqa (first asked 2018-02-10)'
    """
    listed = ", ".join(
        f"{name} (first asked {first})" if first else f"{name} (its first day is not stated)"
        for name, first in exams.items()
    )
    known = "is not stated" if cutoff == UNKNOWN else f"is {cutoff}"
    return f"the data cutoff of the teacher {model} {known}, so it may know {listed}"


def teacher_warnings(recipe: Recipe) -> Iterator[str]:
    """Yield the sentence about a teacher that may know an exam of `evaluate`; none for the recipe's own model."""
    if recipe.teach is None or recipe.teach.is_itself:
        return
    cutoff = str(recipe.teach.teacher_cutoff)
    if exams := exams_it_may_know(cutoff, exam_days(recipe)):
        text = describe_teacher(recipe.teach.name, cutoff, exams)
        mend = "Write `teacher_cutoff`, if its makers state one. " if cutoff == UNKNOWN else ""
        yield (
            f"teach: {text}; every card that descends from it states this. {mend}`gate: {{teacher_cutoff: refuse}}` "
            "keeps such a model private."
        )


def teacher_fits_the_gate(recipe: Recipe) -> Iterator[RecipeFault]:
    """A public push that the gate would refuse for its teacher is refused before any work."""
    if recipe.gate.teacher_cutoff == "refuse" and not recipe.publish.private:
        for warning in teacher_warnings(recipe):
            text = f"{warning.removeprefix('teach: ').partition(';')[0]}, and `gate.teacher_cutoff` refuses that. Take "
            text += "an older teacher, ask later exams, or write `gate: {teacher_cutoff: state}`."
            yield RecipeFault("recipe.teacher-may-know-exam", "teach.teacher_cutoff", text)


def shown_explanations_exist(recipe: Recipe) -> Iterator[RecipeFault]:
    """An explanation that the teacher is to see is not one that the question lacks."""
    if recipe.teach and recipe.teach.view_explanation and recipe.teach.only_unexplained:
        text = "shows the teacher a question's explanation, and `only_unexplained` asks the questions without one. "
        yield RecipeFault("recipe.no-explanation-to-view", "teach.view_explanation", text + "Remove one of the two.")


def private_past_stays_here(recipe: Recipe) -> Iterator[RecipeFault]:
    """No past question from the source of a private exam is sent to another machine that the exam does not name."""
    for stage, settings in askings_of(recipe):
        sources = {source.source for source in settings.data}
        for name, exam in recipe.exams.items():
            if not exam.private or _place(exam.source) not in map(_place, sources):
                continue
            for host in hosts_of(recipe):
                if host.place.startswith(f"{stage}.") and host.outside and not allows(exam, host.address):
                    text = (
                        f"`{name}` is private, and past questions of its source {exam.source} would be sent to "
                        f"{host.name}. Ask a model of this machine, or write `allowed_hosts: [{host.hostname}]` under "
                        f"exams.{name}."
                    )
                    yield RecipeFault("recipe.private-exam", host.place, text)


def _place(source: str) -> str:
    """Return a source without what writes the same folder otherwise, or another revision of a repository."""
    reference = parse_reference(source)
    return reference.repo_id or source.rstrip("/")


TEACHER_RULES: tuple[Callable[[Recipe], Iterator[RecipeFault]], ...] = (
    teacher_fits_the_gate,
    shown_explanations_exist,
    private_past_stays_here,
)
