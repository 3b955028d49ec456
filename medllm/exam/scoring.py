"""Score a system on an exam: points and accuracy, whole and by part, each with its denominator and interval."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from medllm.exam.bootstrap import (
    RESAMPLES,
    Floats,
    Interval,
    all_or_nothing,
    interval,
    mean_of_strata,
    pooled,
    resample_sums,
)
from medllm.exam.judging import Rules, judge
from medllm.exam.passing import Verdict, verdicts
from medllm.exam.predictions import System
from medllm.exam.question import Question
from medllm.exam.record import Record


@dataclass(frozen=True, slots=True)
class Tally:
    """What was earned in one part of an exam."""

    points: float
    total: float
    correct: int
    count: int
    unparsed: int
    """Questions among them without a readable answer; they earn nothing."""
    interval: Interval | None
    """The 95 % interval of points / total."""

    @property
    def score(self) -> float | None:
        """Points earned of points there were; None in a part that carries none."""
        return self.points / self.total if self.total else None


@dataclass(frozen=True, slots=True)
class Score:
    """A system's result on an exam."""

    benchmark: str
    rules: Rules
    model: str
    prompt: str | None
    score: float
    """The mean of the years' points / total: the number the paper and IgakuQA report."""
    interval: Interval | None
    whole: Tally
    """All years together."""
    accuracy: float
    accuracy_interval: Interval | None
    years: dict[str, Tally]
    parts: dict[str, dict[str, Tally]]
    """By section, by required and general, by category, by text-only and with a picture."""
    prohibited: int
    prohibited_of: int
    """Questions with labelled prohibited choices: the denominator of `prohibited`."""
    verdicts: list[Verdict]
    missing: int
    """Questions of the years scored that had no prediction: they count as unanswered, with zero points."""
    attempted: Tally
    """Only the questions that had a prediction."""


Cells = dict[tuple[str, str], Floats]

_PARTS: dict[str, Callable[[Record], str | None]] = {
    "section": lambda record: record.section,
    "part": lambda record: ("required" if record.required else "general") if record.section else None,
    "category": lambda record: record.category,
    "material": lambda record: "with a picture" if record.image else "text only",
}


def score(
    questions: Sequence[Question],
    system: System,
    *,
    rules: Rules = "normalised",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Score:
    """Score a system on the years it predicted anything of; what it left out there counts as unanswered."""
    years = {question.year for question in questions if question.question_id in system.predictions}
    asked = [question for question in questions if question.year in years]
    records = [_judged(question, system, rules) for question in asked]
    given = np.array([question.question_id in system.predictions for question in asked])
    cells = _cells(records) | {("attempted", ""): given.astype(float)}
    tallies, of_score, of_accuracy = _tallied(records, cells, resamples, seed)
    by_year = {name: tally for (kind, name), tally in tallies.items() if kind == "year"}
    whole = tallies["whole", ""]
    yearly = [tally.score for tally in by_year.values() if tally.score is not None]
    return Score(
        benchmark=asked[0].benchmark,
        rules=rules,
        model=system.model,
        prompt=system.prompt,
        score=sum(yearly) / len(yearly) if yearly else 0.0,
        interval=of_score,
        whole=whole,
        accuracy=whole.correct / whole.count,
        accuracy_interval=of_accuracy,
        years=by_year,
        parts={part: {name: tally for (kind, name), tally in tallies.items() if kind == part} for part in _PARTS},
        prohibited=sum(record.prohibited is not None for record in records),
        prohibited_of=sum(bool(question.prohibited) for question in asked),
        verdicts=verdicts(records) if given.all() else [],
        missing=int((~given).sum()),
        attempted=tallies["attempted", ""],
    )


def _judged(question: Question, system: System, rules: Rules) -> Record:
    """The record of a question's prediction, or of its absence."""
    prediction = system.predictions.get(question.question_id)
    text = prediction.text if prediction else ""
    finish = prediction.finish_reason if prediction else None
    record = judge(question, text, model=system.model, rules=rules, finish_reason=finish)
    return record if prediction else _absent(record)


def _absent(record: Record) -> Record:
    """A question nobody answered earns nothing, even where any answer is right."""
    return replace(record, correct=False, points=0.0)


def _cells(records: Sequence[Record]) -> Cells:
    """For every part of the exam, which records belong to it."""
    cells: Cells = {("whole", ""): np.ones(len(records))}
    names = [("year", str(record.year) if record.year is not None else "all") for record in records]
    for part, of in _PARTS.items():
        names += [(part, name) for record in records if (name := of(record)) is not None]
    sizes = Counter(names)
    for kind, name in sorted(sizes, key=lambda cell: -sizes[cell] if cell[0] == "category" else 0):
        of = _PARTS.get(kind, lambda record: str(record.year) if record.year is not None else "all")
        cells[kind, name] = np.array([of(record) == name for record in records], dtype=float)
    return cells


def _tallied(
    records: Sequence[Record], cells: Cells, resamples: int, seed: int
) -> tuple[dict[tuple[str, str], Tally], Interval | None, Interval | None]:
    """Every part's tally, and the intervals of the score and of the accuracy, from one bootstrap."""
    points = np.array([record.points for record in records])
    totals = np.array([record.points_total for record in records])
    correct = np.array([record.correct for record in records], dtype=float)
    unread = np.array([record.answer is None for record in records], dtype=float)
    columns = [correct, np.ones(len(records))]
    for members in cells.values():
        columns += [points * members, totals * members]
    clusters = [record.group or record.question_id for record in records]
    sums = resample_sums(np.stack(columns, axis=1), clusters, [r.year for r in records], resamples=resamples, seed=seed)
    tallies = {}
    for place, (cell, members) in enumerate(cells.items()):
        earned, total, count = float(points @ members), float(totals @ members), int(members.sum())
        drawn = interval(pooled(sums, 2 + 2 * place, 3 + 2 * place))
        tallies[cell] = Tally(
            points=earned,
            total=total,
            correct=int(correct @ members),
            count=count,
            unparsed=int(unread @ members),
            interval=all_or_nothing(count, right=earned > 0) if drawn and earned in (0.0, total) else drawn,
        )
    return tallies, interval(mean_of_strata(sums, 2, 3)), interval(pooled(sums, 0, 1))
