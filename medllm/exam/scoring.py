"""Score systems on an exam: points and accuracy, in total and by part, each with its denominator and interval."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from medllm.errors import DataError
from medllm.exam.grading import Rules, Verdict, grade, verdicts
from medllm.exam.predictions import System
from medllm.exam.question import Question
from medllm.exam.record import PromptStyle, Record
from medllm.exam.statistics import Estimate, Floats, Interval, QuestionSample, Ratio, holm, mcnemar

Scope = Literal["asked", "year"]
"""The questions behind a score: those with a prediction, or all of the years that have some."""


@dataclass(frozen=True, slots=True)
class ScoreTally:
    """The points earned in one part of an exam."""

    points: float
    total: float
    correct: int
    count: int
    unparsed: int
    """Number of these questions without a readable answer; they earn no points."""
    interval: Interval | None
    """The 95 % interval of points / total."""

    @property
    def score(self) -> float | None:
        """Points earned / points available; None for a part without points."""
        return self.points / self.total if self.total else None


@dataclass(frozen=True, slots=True)
class Difference:
    """A system's score minus the reference's, over the questions that count for both."""

    against: str
    against_prompt: str | None
    questions: int
    estimate: Estimate
    """The paired difference of the scores."""
    only_reference: int
    only_this: int
    """Questions that only one of the two answered right."""
    p: float
    """McNemar's exact two-sided p of these two counts."""
    p_holm: float
    """Corrected for the number of comparisons with the reference."""


@dataclass(frozen=True, slots=True)
class Score:
    """A system's result on an exam."""

    benchmark: str
    rules: Rules
    model: str
    prompt: str | None
    scope: Scope
    """Whether the numbers are of the questions with a prediction, or of all questions of their years."""
    trial: bool
    """Whether replies to no section (or year, where there are no sections) are complete: a sample, not an exam."""
    score: Estimate
    """The mean of the years' points / total: the number the paper and IgakuQA report."""
    whole: ScoreTally
    """All years together."""
    accuracy: Estimate
    years: dict[str, ScoreTally]
    parts: dict[str, dict[str, ScoreTally]]
    """Tallies by section, by required and general, by category, by text-only and with a picture."""
    prohibited: int
    prohibited_of: int
    """Questions with labelled prohibited choices: the denominator of `prohibited`."""
    verdicts: list[Verdict]
    missing: int
    """Questions of the years without a prediction; with the scope `year` they earn nothing."""
    attempted: ScoreTally
    """The tally of only the questions with a prediction."""
    difference: Difference | None
    """None for the reference itself, or where no question is shared."""


_PARTS: dict[str, Callable[[Record], str | None]] = {
    "section": lambda record: record.section,
    "part": lambda record: ("required" if record.required else "general") if record.section else None,
    "category": lambda record: record.category,
    "material": lambda record: "with a picture" if record.image else "text only",
}


def score(
    questions: Sequence[Question],
    systems: Sequence[System],
    *,
    rules: Rules = "normalised",
    scope: Scope | None = None,
    against: str | None = None,
) -> list[Score]:
    """Score systems and compare each with the first one, or with `against`: `MODEL`, or `MODEL:PROMPT`.

    `scope` is `year`: missing predictions of a year with at least one count as unanswered; or `asked`: they are left
    out. None takes `year` for a system that answered its years whole, else `asked`.

    Raises:
        DataError: No system is called `against`, or a question has no key.
    """
    _check_keys(questions)
    known = {question.question_id: question.year for question in questions}
    years = {known[name] for system in systems for name in system.predictions}
    asked = [question for question in questions if question.year in years]
    sample = QuestionSample(
        [question.vignette_id or question.question_id for question in asked], [q.year for q in asked]
    )
    sheets = [_Sheet.of(asked, system, rules, scope) for system in systems]
    reference = _reference(systems, against)
    pairs = [
        sheet.minus(sheets[reference], sample) if place != reference else None for place, sheet in enumerate(sheets)
    ]
    corrected = iter(holm([pair.p for pair in pairs if pair is not None]))
    differences = [None if pair is None else replace(pair, p_holm=next(corrected)) for pair in pairs]
    return [_score(sheet, sample, rules, difference) for sheet, difference in zip(sheets, differences, strict=True)]


def _check_keys(questions: Sequence[Question]) -> None:
    missing = [question for question in questions if not question.has_key]
    if missing:
        raise DataError(
            "exam.no-key",
            f"{missing[0].benchmark} question {missing[0].question_id}: has no key ({len(missing)} of {len(questions)}"
            " have none), so no reply to it can be scored. Add the answers to the exam.",
        )


def _reference(systems: Sequence[System], against: str | None) -> int:
    """Return the place of the system with which the others are compared."""
    if against is None:
        return 0
    for place, system in enumerate(systems):
        if against in (system.model, f"{system.model}:{system.prompt}"):
            return place
    names = dict.fromkeys(f"{system.model}:{system.prompt}" if system.prompt else system.model for system in systems)
    raise DataError(
        "exam.unknown-reference", f"--against {against}: no predictions have that name. There are {', '.join(names)}."
    )


def graded_records(questions: Sequence[Question], systems: Sequence[System], *, rules: Rules) -> list[Record]:
    """Return a record of each prediction, graded; a system without a prompt counts as asked plainly."""
    known = {question.question_id: question for question in questions}
    _check_keys(questions)
    parts = [_is_trial(questions, system) for system in systems]
    return [
        replace(_judged(known[name], system, rules, prompt=system.prompt or "plain"), trial=trial)
        for system, trial in zip(systems, parts, strict=True)
        for name in system.predictions
    ]


def _is_trial(questions: Sequence[Question], system: System) -> bool:
    """Return whether no section (or year, where there are no sections) is answered whole."""
    complete: dict[object, bool] = {}
    years = {question.year for question in questions if question.question_id in system.predictions}
    for question in questions:
        if question.year in years:
            part = (question.year, question.section)
            complete[part] = complete.get(part, True) and question.question_id in system.predictions
    return not any(complete.values())


@dataclass(frozen=True, slots=True)
class _Sheet:
    """A system's answers aligned with the exam: a record per question, and the columns behind its numbers."""

    system: System
    questions: Sequence[Question]
    records: list[Record]
    scope: Scope
    trial: bool
    of_years: Floats
    """1 for the questions of the years with at least one prediction."""
    members: Floats
    """1 for the questions that count in this scope."""
    given: Floats
    """1 for the questions that have a prediction."""
    points: Floats
    totals: Floats
    correct: Floats
    unread: Floats

    @classmethod
    def of(cls, questions: Sequence[Question], system: System, rules: Rules, scope: Scope | None) -> "_Sheet":
        """Grade every question's prediction, or its absence."""
        years = {question.year for question in questions if question.question_id in system.predictions}
        records = [_judged(question, system, rules) for question in questions]
        of_years = np.array([question.year in years for question in questions], dtype=float)
        given = np.array([question.question_id in system.predictions for question in questions], dtype=float)
        chosen: Scope = scope or ("year" if (given >= of_years).all() else "asked")
        members = of_years if chosen == "year" else given
        return cls(
            system=system,
            questions=questions,
            records=records,
            scope=chosen,
            trial=_is_trial(questions, system),
            of_years=of_years,
            members=members,
            given=given,
            points=np.array([record.points for record in records]) * members,
            totals=np.array([record.points_total for record in records]) * members,
            correct=np.array([record.correct for record in records], dtype=float) * members,
            unread=np.array([record.answer is None for record in records], dtype=float) * members,
        )

    def tally(self, part: Floats, sample: QuestionSample) -> ScoreTally:
        """Count one part."""
        return ScoreTally(
            points=float(self.points @ part),
            total=float(self.totals @ part),
            correct=int(self.correct @ part),
            count=int(self.members @ part),
            unparsed=int(self.unread @ part),
            interval=sample.part(Ratio(self.points, self.totals), part).interval,
        )

    def minus(self, reference: "_Sheet", sample: QuestionSample) -> Difference | None:
        """Compute this score minus the reference's, question by question, with p not yet corrected."""
        both = self.members * reference.members
        if not both.any():
            return None
        mine, its = (Ratio(sheet.points * both, sheet.totals * both) for sheet in (self, reference))
        only_this = int((self.correct * both * (1 - reference.correct)).sum())
        only_reference = int((reference.correct * both * (1 - self.correct)).sum())
        p = mcnemar(only_reference, only_this)
        return Difference(
            against=reference.system.model,
            against_prompt=reference.system.prompt,
            questions=int(both.sum()),
            estimate=sample.score(mine, minus=its),
            only_reference=only_reference,
            only_this=only_this,
            p=p,
            p_holm=p,
        )

    def parts(self, of: Callable[[Record], str | None], sample: QuestionSample) -> dict[str, ScoreTally]:
        """Return the tallies of a division of the exam, in order of name, or of size if there are many parts."""
        names = [of(record) if member else None for record, member in zip(self.records, self.members, strict=True)]
        sizes = Counter(name for name in names if name is not None)
        order = sorted(sizes) if len(sizes) < 10 else [name for name, _ in sizes.most_common()]
        members = {name: np.array([other == name for other in names], dtype=float) for name in order}
        return {name: self.tally(part, sample) for name, part in members.items()}


def _judged(question: Question, system: System, rules: Rules, prompt: PromptStyle = "plain") -> Record:
    """Return the record of a prediction, or of its absence, which earns nothing even if every answer is right."""
    prediction = system.predictions.get(question.question_id)
    if prediction is None:
        return replace(grade(question, "", model=system.model, rules=rules), correct=False, points=0.0)
    return grade(
        question,
        prediction.text,
        model=system.model,
        prompt=prompt,
        rules=rules,
        finish_reason=prediction.finish_reason,
        probability=prediction.probability,
        **prediction.facts,
    )


def _score(sheet: _Sheet, sample: QuestionSample, rules: Rules, difference: Difference | None) -> Score:
    """Compute one system's estimates and tally its parts."""
    asked = [question for question, member in zip(sheet.questions, sheet.members, strict=True) if member]
    records = [record for record, member in zip(sheet.records, sheet.members, strict=True) if member]
    years = {}
    for year in dict.fromkeys(question.year for question in sheet.questions):
        part = sheet.members * np.array([question.year == year for question in sheet.questions])
        if part.any():
            years["all" if year is None else str(year)] = sheet.tally(part, sample)
    return Score(
        benchmark=sheet.questions[0].benchmark,
        rules=rules,
        model=sheet.system.model,
        prompt=sheet.system.prompt,
        scope=sheet.scope,
        trial=sheet.trial,
        score=sample.score(Ratio(sheet.points, sheet.totals)),
        whole=sheet.tally(sheet.members, sample),
        accuracy=sample.share(Ratio(sheet.correct, sheet.members)),
        years=years,
        parts={part: sheet.parts(of, sample) for part, of in _PARTS.items()},
        prohibited=sum(record.prohibited is not None for record in records),
        prohibited_of=sum(bool(question.prohibited) for question in asked),
        verdicts=verdicts(records) if (sheet.given >= sheet.of_years).all() else [],
        missing=int((sheet.of_years - sheet.given).sum()),
        attempted=sheet.tally(sheet.given, sample),
        difference=difference,
    )
