"""Score systems on an exam: points and accuracy, in total and by part, each with its denominator and interval."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from medllm.exam.grading import Rules, grade
from medllm.exam.pass_rule import Verdict, verdicts
from medllm.exam.predictions import System
from medllm.exam.question import Question
from medllm.exam.record import Record
from medllm.exam.statistics import Estimate, Floats, Interval, QuestionSample, Ratio


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
class Score:
    """A system's result on an exam."""

    benchmark: str
    rules: Rules
    model: str
    prompt: str | None
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
    """Questions of the scored years without a prediction: they count as unanswered, with zero points."""
    attempted: ScoreTally
    """The tally of only the questions with a prediction."""


_PARTS: dict[str, Callable[[Record], str | None]] = {
    "section": lambda record: record.section,
    "part": lambda record: ("required" if record.required else "general") if record.section else None,
    "category": lambda record: record.category,
    "material": lambda record: "with a picture" if record.image else "text only",
}


def score(questions: Sequence[Question], systems: Sequence[System], *, rules: Rules = "normalised") -> list[Score]:
    """Score systems, each on the years with at least one prediction; missing predictions there count as unanswered."""
    known = {question.question_id: question.year for question in questions}
    years = {known[name] for system in systems for name in system.predictions}
    asked = [question for question in questions if question.year in years]
    sample = QuestionSample(
        [question.vignette_id or question.question_id for question in asked], [q.year for q in asked]
    )
    return [_score(_Sheet.of(asked, system, rules), sample, rules) for system in systems]


@dataclass(frozen=True, slots=True)
class _Sheet:
    """A system's answers aligned with the exam: a record per question, and the columns behind its numbers."""

    system: System
    questions: Sequence[Question]
    records: list[Record]
    members: Floats
    """1 for the questions of the years with at least one prediction."""
    given: Floats
    """1 for the questions that have a prediction."""
    points: Floats
    totals: Floats
    correct: Floats
    unread: Floats

    @classmethod
    def of(cls, questions: Sequence[Question], system: System, rules: Rules) -> "_Sheet":
        """Grade every question's prediction, or its absence."""
        years = {question.year for question in questions if question.question_id in system.predictions}
        records = [_judged(question, system, rules) for question in questions]
        members = np.array([question.year in years for question in questions], dtype=float)
        return cls(
            system=system,
            questions=questions,
            records=records,
            members=members,
            given=np.array([question.question_id in system.predictions for question in questions], dtype=float),
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

    def parts(self, of: Callable[[Record], str | None], sample: QuestionSample) -> dict[str, ScoreTally]:
        """Return the tallies of a division of the exam, in order of name, or of size if there are many parts."""
        names = [of(record) if member else None for record, member in zip(self.records, self.members, strict=True)]
        sizes = Counter(name for name in names if name is not None)
        order = sorted(sizes) if len(sizes) < 10 else [name for name, _ in sizes.most_common()]
        members = {name: np.array([one == name for one in names], dtype=float) for name in order}
        return {name: self.tally(part, sample) for name, part in members.items()}


def _judged(question: Question, system: System, rules: Rules) -> Record:
    """Return the record of a prediction, or of its absence, which earns nothing even if every answer is right."""
    prediction = system.predictions.get(question.question_id)
    if prediction is None:
        return replace(grade(question, "", model=system.model, rules=rules), correct=False, points=0.0)
    return grade(question, prediction.text, model=system.model, rules=rules, finish_reason=prediction.finish_reason)


def _score(sheet: _Sheet, sample: QuestionSample, rules: Rules) -> Score:
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
        score=sample.score(Ratio(sheet.points, sheet.totals)),
        whole=sheet.tally(sheet.members, sample),
        accuracy=sample.share(Ratio(sheet.correct, sheet.members)),
        years=years,
        parts={part: sheet.parts(of, sample) for part, of in _PARTS.items()},
        prohibited=sum(record.prohibited is not None for record in records),
        prohibited_of=sum(bool(question.prohibited) for question in asked),
        verdicts=verdicts(records) if (sheet.given >= sheet.members).all() else [],
        missing=int((sheet.members - sheet.given).sum()),
        attempted=sheet.tally(sheet.given, sample),
    )
