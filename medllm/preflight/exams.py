"""The exams that a recipe asks, samples from and holds out: years, keys, dates, worked examples, read before work."""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from medllm.errors import DataError, MedllmError, RecipeError
from medllm.exam.benchmarks import CATALOGUE, exemplars, load
from medllm.exam.extract.answer import unmatched_answers
from medllm.exam.prompts import refuse_test_items, target_completion
from medllm.exam.question import Question, of_years
from medllm.recipe import Recipe
from medllm.recipe.base import Stage
from medllm.recipe.dependencies import askings_of
from medllm.recipe.errors import Lines, RecipeFault, error_of
from medllm.recipe.read import parse_yaml
from medllm.recipe.settings import DataSource, Evaluate, Grpo, Preferences, Rounds, Teach


@dataclass
class Findings:
    """The faults so far; a check that raises adds its error, and the next check runs all the same."""

    faults: list[RecipeFault] = field(default_factory=list)

    def add(self, place: str, error: MedllmError) -> None:
        """Add a fault, unless the same one was found at another place."""
        if all(fault.text != str(error) for fault in self.faults):
            self.faults.append(RecipeFault(error.code, place, str(error)))

    @contextmanager
    def collect(self, place: str) -> Iterator[None]:
        """Run one check; an expected error becomes a fault at this place."""
        try:
            yield
        except MedllmError as error:
            self.add(place, error)


def refuse_all(recipe: Recipe, faults: Sequence[RecipeFault]) -> None:
    """Raise one RecipeError that lists all faults in the order of the recipe, each with its line, place and code."""
    if faults:
        raise error_of(list(faults), str(recipe.path), _lines(recipe))


def _lines(recipe: Recipe) -> Lines:
    """Number the lines of the recipe's keys; none where the file is gone or was never one."""
    try:
        return parse_yaml(recipe.path.read_text("utf-8"), str(recipe.path))[1]
    except (OSError, MedllmError):
        return {}


SHOWN = 3
"""Questions that a message names; more of them are counted."""
TABLES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")


@dataclass(frozen=True)
class _Exam:
    name: str
    folder: Path
    questions: list[Question]


def check_exams(
    recipe: Recipe, stages: Collection[Stage], sources: Mapping[str, Path], findings: Findings, *, thorough: bool
) -> None:
    """Read every exam within reach once, then check what the stages ask of it."""
    _check_copies(recipe, stages, sources, findings)
    settings = recipe.evaluate if "evaluate" in stages else None
    developing = recipe.rounds.evaluate if "rounds" in stages and recipe.rounds else None
    asked = settings.benchmarks if settings else ()
    learning = (recipe.corpus, *(asking for _, asking in askings_of(recipe)))
    held = [name for stage in learning if stage for name in stage.held_out or ()]
    read: dict[str, _Exam] = {}
    for name in dict.fromkeys((*asked, *held, *(developing.benchmarks if developing else ()))):
        if name in sources:
            with findings.collect(f"exams.{name}" if name in recipe.exams else "evaluate.benchmarks"):
                own = recipe.exams.get(name)
                questions = of_years(load(name, sources[name]), own.years if own else None)
                read[name] = _Exam(name, sources[name], questions)
    for exam in read.values():
        if exam.name not in CATALOGUE:
            _check_keys(exam, findings)
            _check_first(recipe, exam, findings)
    if settings:
        exams = [read[name] for name in asked if name in read]
        if len(exams) == len(asked):
            _check_years(settings, exams, findings)
        for exam in exams:
            _check_dates(recipe, settings, exam, findings)
            _check_exemplars(settings, exam, findings, thorough=thorough)
    if developing:
        for name in (name for name in developing.benchmarks if name in read):
            _check_exemplars(developing, read[name], findings, thorough=thorough, place="rounds.evaluate.shots")
            _check_development(read[name], [read[other] for other in asked if other in read], findings)


def _check_development(exam: _Exam, asked: Sequence[_Exam], findings: Findings) -> None:
    """No question on which rounds are chosen is one that the results are about."""
    from medllm.preferences.questions import essence

    for other in asked:
        tested = {essence(question) for question in other.questions}
        same = [question.question_id for question in exam.questions if essence(question) in tested]
        if same:
            text = (
                f"{len(same)} of {len(exam.questions)} questions of the development exam `{exam.name}` are those of "
                f"`{other.name}`, which `evaluate` asks ({_some(same)}). Take them out, or develop on another exam."
            )
            findings.add("rounds.exam", RecipeError("recipe.development-exam-asked", text))


def _check_years(settings: Evaluate, exams: Sequence[_Exam], findings: Findings) -> None:
    """Every year is in one of the exams at least, and every exam has a question of these years."""
    if settings.years is None:
        return
    present = {
        exam.name: sorted({question.year for question in exam.questions if question.year is not None}) for exam in exams
    }
    known = {year for years in present.values() for year in years}
    unknown = [str(year) for year in settings.years if year not in known]
    has = "; ".join(f"{name} has {_span(years)}" for name, years in present.items())
    if unknown:
        text = f"no exam here is of {', '.join(unknown)}: {has}. Name only years that the exams have."
        findings.add("evaluate.years", RecipeError("recipe.unknown-year", text))
        return
    for exam in exams:
        if not of_years(exam.questions, settings.years):
            text = f"no question of {exam.name} is of these years: {has}. Add a year of it, or leave the exam out."
            findings.add("evaluate.years", RecipeError("recipe.no-question-of-years", text))


def _span(years: Sequence[int]) -> str:
    """Write years as people do.

    >>> _span([2018, 2019, 2020]), _span([2018, 2026]), _span([])
    ('2018 to 2020', '2018, 2026', 'no year')
    """
    if not years:
        return "no year"
    whole = list(range(years[0], years[-1] + 1)) == list(years) and len(years) > 1
    return f"{years[0]} to {years[-1]}" if whole else ", ".join(map(str, years))


def _check_keys(exam: _Exam, findings: Findings) -> None:
    """The parser reads every accepted answer from a reply that writes it plainly."""
    bad = [
        f"{question.question_id} ({answer})" for question in exam.questions for answer in unmatched_answers(question)
    ]
    if bad:
        text = (
            f"{exam.folder}: no reply can match the key of {_some(bad)}: the parser reads another answer from a reply "
            "that writes it. Write letters of the choices, or a plain number such as 21.5."
        )
        findings.add(f"exams.{exam.name}", DataError("exam.key-unmatched", text))


def _check_first(recipe: Recipe, exam: _Exam, findings: Findings) -> None:
    """The rows do not contradict the day that the recipe states as the first."""
    own = recipe.exams.get(exam.name)
    days = [question.exam_date for question in exam.questions if question.exam_date]
    if own and own.first and days and min(days) < own.first:
        text = (
            f"`first` is {own.first}, but the rows of {exam.name} begin with {min(days)}. Write `first: {min(days)}`, "
            "or correct exam_date in the rows."
        )
        findings.add(f"exams.{exam.name}.first", RecipeError("recipe.first-contradicted", text))


def _check_dated(recipe: Recipe, settings: Evaluate, exam: _Exam, cutoff: date, findings: Findings) -> None:
    """An exam without a stated first day has a day later than the cutoff, or a later year, in each row."""
    own = recipe.exams.get(exam.name)
    if exam.name in CATALOGUE or (own and own.first):
        return
    chosen = of_years(exam.questions, settings.years)
    undated = [
        question.question_id for question in chosen if not question.exam_date and (question.year or 0) <= cutoff.year
    ]
    if undated:
        text = (
            f"{len(undated)} of {len(chosen)} questions of {exam.name} have no day of their exam ({_some(undated)}), "
            f"so nothing shows that they are later than the cutoff, {cutoff}. Give each row an exam_date, or state the "
            "earliest day for all: `{source: ..., first: 2018-02-10}`."
        )
        findings.add(f"exams.{exam.name}", RecipeError("recipe.no-first-day", text))


def _check_dates(recipe: Recipe, settings: Evaluate, exam: _Exam, findings: Findings) -> None:
    """No question that is asked was sat on or before a cutoff."""
    learning = (recipe.corpus, *(asking for _, asking in askings_of(recipe)))
    stages = [recipe.cutoff, *(stage.cutoff for stage in learning if stage)]
    cutoff = max((day for day in stages if day), default=None)
    if cutoff is None:
        return
    _check_dated(recipe, settings, exam, cutoff, findings)
    chosen = of_years(exam.questions, settings.years)
    early = [
        f"{question.question_id} ({question.exam_date})"
        for question in chosen
        if question.exam_date and question.exam_date <= cutoff
    ]
    if early:
        text = (
            f"{len(early)} of {len(chosen)} questions of {exam.name} were sat by the cutoff, {cutoff}: {_some(early)}. "
            "The texts may hold their answers. Set an earlier cutoff, limit evaluate.years, or take them out."
        )
        place = f"exams.{exam.name}" if exam.name in recipe.exams else "cutoff"
        findings.add(place, RecipeError("recipe.exam-before-cutoff", text))


def _check_exemplars(
    settings: Evaluate, exam: _Exam, findings: Findings, *, thorough: bool, place: str = "evaluate.shots"
) -> None:
    """There are as many worked examples as shots, and none is a question that is asked."""
    shots = settings.shots if isinstance(settings.shots, int) else settings.shots.get(exam.name, 0)
    if not shots:
        return
    with findings.collect(place):
        given = exemplars(exam.name, exam.folder)
        if len(given) < shots:
            raise DataError(
                "exam.too-few-exemplars",
                f"{exam.name} has {len(given)} worked examples and {shots} are asked for. Set shots to {len(given)} at "
                f"most, or add examples to {exam.folder}.",
            )
        refuse_test_items(given[:shots], of_years(exam.questions, settings.years))
        for example in given[:shots]:
            for style in settings.prompts:
                target_completion(example, style, settings.template)
    if thorough and not findings.faults:
        from medllm.evaluation import build_exam_runs

        with findings.collect(place):
            build_exam_runs(settings.model_copy(update={"benchmarks": (exam.name,)}), {exam.name: exam.folder})


def _check_copies(recipe: Recipe, stages: Collection[Stage], sources: Mapping[str, Path], findings: Findings) -> None:
    """No file is both trained on and held out: each question of it would be left out without a word."""
    learning = {"corpus": recipe.corpus, **dict(askings_of(recipe))}
    for stage, settings in learning.items():
        if settings is None or stage.partition(".")[0] not in stages:
            continue
        held = {name: list(_tables(sources[name])) for name in settings.held_out or () if name in sources}
        sizes = {path.stat().st_size for files in held.values() for path in files}
        contents = {_content(path): name for name, files in held.items() for path in files}
        for number, source in enumerate(settings.data):
            for path in _tables_of(source, sources):
                if path.stat().st_size in sizes and (name := contents.get(_content(path))):
                    if source.years and not set(source.years) & set(settings.exam_years.get(name, source.years)):
                        continue
                    text = (
                        f"{path} is also the held-out exam `{name}`, so its questions would be left out here. Divide "
                        f"it by years: `years: [...]` here for the past ones, and under `exams.{name}` for those to "
                        "be asked. Or put them into two files."
                    )
                    findings.add(f"{stage}.data[{number}]", RecipeError("recipe.held-out-trained", text))
                    break


def _tables_of(source: DataSource, sources: Mapping[str, Path]) -> Iterator[Path]:
    return _tables(sources[source.source]) if source.source in sources else iter(())


def _tables(folder: Path) -> Iterator[Path]:
    """List the files of a folder that may hold questions."""
    files = sorted(folder.rglob("*")) if folder.is_dir() else [folder]
    for path in files:
        if path.is_file() and path.suffix.lower() in TABLES and path.name != "exemplars.jsonl":
            yield path


def _content(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _some(names: Sequence[str]) -> str:
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def check_past_questions(
    settings: Preferences | Teach | Grpo,
    sources: Mapping[str, Path],
    findings: Findings,
    *,
    thorough: bool,
    place: str = "preferences",
) -> None:
    """Choose the questions as the stage will; skipped while a source is out of reach or already faulty."""
    needed = [source.source for source in settings.data] + list(settings.held_out or ())
    needed += [name for name in (settings.exemplars, getattr(settings, "explanations", None)) if name]
    if findings.faults or any(name not in sources for name in needed):
        return
    from medllm.preferences.questions import select_questions

    held_out = settings.held_out if thorough else ()
    with findings.collect(f"{place}.data"):
        select_questions(settings.model_copy(update={"held_out": held_out}), dict(sources))


def check_rounds(settings: Rounds, sources: Mapping[str, Path], findings: Findings, *, thorough: bool) -> None:
    """Choose the questions of the rounds, of which none may be one of the development exam."""
    check_past_questions(settings.preferences, sources, findings, thorough=thorough, place="rounds.preferences")
    needed = [source.source for source in settings.preferences.data] + [settings.exam]
    if findings.faults or any(name not in sources for name in needed):
        return
    from medllm.preferences.development import refuse_trained_exam

    with findings.collect("rounds.preferences.data"):
        refuse_trained_exam(settings, dict(sources))
