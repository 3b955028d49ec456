"""Stability under explanation: the change of each answer when the model must explain, and the one table of it."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from medllm.exam.record import PROMPTS, PromptStyle, Record
from medllm.exam.stability.condition import Condition, ExamReplies, align_replies, condition
from medllm.exam.stability.paired import Comparison, PairedChange, compare_models, paired_change
from medllm.exam.statistics import Estimate, Interval, QuestionSample, Ratio, mcnemar


@dataclass(frozen=True, slots=True)
class Share:
    """A score under one prompt with its 95 % interval, from `right` of `asked` questions."""

    value: float
    low: float
    high: float
    right: int
    asked: int

    @classmethod
    def of(cls, score: Estimate, right: int, asked: int) -> "Share | None":
        """Return the share of an estimate; None for one without value or interval."""
        if score.value is None or score.interval is None:
            return None
        return cls(score.value, score.interval.low, score.interval.high, right, asked)

    @property
    def estimate(self) -> Estimate:
        """The score as a number with its interval."""
        return Estimate(self.value, Interval(self.low, self.high))


@dataclass(frozen=True, slots=True)
class ScoreChange:
    """Explained minus plain over the questions asked both ways, with its paired 95 % interval."""

    value: float
    low: float
    high: float
    lost: int
    gained: int
    kept: int
    """Right both times."""
    never: int
    """Right neither time."""

    @classmethod
    def of(cls, delta: Estimate, *, lost: int, gained: int, kept: int, never: int) -> "ScoreChange | None":
        """Return the change of an estimate; None for one without value or interval."""
        if delta.value is None or delta.interval is None:
            return None
        return cls(delta.value, delta.interval.low, delta.interval.high, lost, gained, kept, never)

    @property
    def estimate(self) -> Estimate:
        """The change as a number with its interval."""
        return Estimate(self.value, Interval(self.low, self.high))

    @property
    def p(self) -> float:
        """Exact McNemar, two-sided, of lost against gained."""
        return mcnemar(self.lost, self.gained)

    @property
    def retention(self) -> float:
        """The share of plainly right questions that are still right when explained."""
        return self.kept / (self.kept + self.lost) if self.kept + self.lost else math.nan

    @property
    def sense(self) -> Literal["worse", "better", "unclear"]:
        """Direction of the change if the interval excludes 0, else `unclear`."""
        return "worse" if self.high < 0 else "better" if self.low > 0 else "unclear"


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One model on one exam."""

    model: str
    exam: str
    """The exam's name; empty for a selection of questions of several exams."""
    plain: Share | None
    explain: Share | None
    change: ScoreChange | None
    """None if the model was asked only one way."""
    trial: bool = False
    """Whether only a part of the exam was asked: a reader of any number of the row has to know it."""

    @property
    def name(self) -> str:
        """The model's name, marked where its numbers are of a trial."""
        return f"{self.model} (trial)" if self.trial else self.model

    @property
    def shares(self) -> dict[PromptStyle, Share | None]:
        """The scores by prompt."""
        return {"plain": self.plain, "explain": self.explain}

    @property
    def questions(self) -> int:
        """How many questions the model was asked, under the prompt that asked more."""
        return max((share.asked for share in self.shares.values() if share), default=0)

    def as_text(self) -> dict[str, Any]:
        """Return the row as a card prints it, in points of 100."""
        return {
            "model": self.name,
            "exam": self.exam,
            "questions": self.questions,
            "plain": format_estimate(self.plain.estimate if self.plain else None),
            "explain": format_estimate(self.explain.estimate if self.explain else None),
            "delta": format_estimate(self.change.estimate if self.change else None, signed=True),
        }

    def as_facts(self) -> dict[str, Any]:
        """Return the numbers as flat columns, the ends of an interval in columns of their own."""
        row: dict[str, Any] = {"model": self.model, "exam": self.exam, "questions": self.questions}
        for name, part in (*self.shares.items(), ("delta", self.change)):
            row |= {name: part and part.value, f"{name}_low": part and part.low, f"{name}_high": part and part.high}
        return row | {"p": self.change and self.change.p}

    def to_json(self) -> dict[str, Any]:
        """Return the whole row as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "ScoreRow":
        """Read what `to_json` returns."""
        plain, explain = (Share(**row[prompt]) if row[prompt] else None for prompt in PROMPTS)
        change = ScoreChange(**row["change"]) if row["change"] else None
        return cls(row["model"], row["exam"], plain, explain, change)


def describe_row(row: ScoreRow) -> str:
    """Describe a row in one line, as it becomes known while others are still asked."""
    cells = row.as_text()
    shown = [f"{name} {cells[name]}" for name in (*PROMPTS, "delta") if cells[name] != "-"]
    return f"{cells['model']} on {cells['exam']}, {cells['questions']} questions: {', '.join(shown)}"


def format_estimate(estimate: Estimate | None, *, signed: bool = False) -> str:
    """Return a number in points of 100 with its interval, 67.9 (60.1 to 74.0), or a dash where there is none."""
    if estimate is None or estimate.value is None:
        return "-"
    sign = "+" if signed else ""
    value = f"{100 * estimate.value:{sign}z.1f}"
    if estimate.interval is None:
        return value
    return f"{value} ({100 * estimate.interval.low:{sign}z.1f} to {100 * estimate.interval.high:{sign}z.1f})"


@dataclass(frozen=True, slots=True)
class Stability:
    """One model on one exam."""

    benchmark: str
    model: str
    conditions: dict[PromptStyle, Condition]
    change: PairedChange | None
    """None if the model was asked only one way."""
    trial: bool
    """Whether only a part of the exam was asked."""


@dataclass(frozen=True, slots=True)
class StabilityReport:
    """All models and all comparisons."""

    models: list[Stability]
    comparisons: list[Comparison]


def stability_report(records: Iterable[Record]) -> StabilityReport:
    """Build the stability report of any number of exams and models."""
    models: list[Stability] = []
    comparisons: list[Comparison] = []
    for exam in align_replies(records):
        sample = exam.sample
        models += [_stability(exam, model, sample) for model in exam.models]
        comparisons += compare_models(exam, sample)
    return StabilityReport(models, comparisons)


def _stability(exam: ExamReplies, model: str, sample: QuestionSample) -> Stability:
    conditions: dict[PromptStyle, Condition] = {}
    for prompt in PROMPTS:
        samples = exam.replies.get((model, prompt))
        if samples is not None:
            correct, there = exam.column(samples, lambda record: float(record.correct))
            score, accuracy = sample.score(exam.points(samples, there)), sample.share(Ratio(correct, there))
            conditions[prompt] = condition(samples, score, accuracy)
    return Stability(exam.benchmark, model, conditions, paired_change(exam, model, sample), exam.is_trial(model))


def score_table(report: StabilityReport) -> list[ScoreRow]:
    """Return a row for every model and exam of a report, in its order."""
    return [_score_row(one) for one in report.models]


def _score_row(one: Stability) -> ScoreRow:
    """Return the row of one model on one exam."""
    plain, explain = (_share(one.conditions.get(prompt)) for prompt in PROMPTS)
    return ScoreRow(one.model, one.benchmark, plain, explain, _change(one.change), one.trial)


def _share(condition: Condition | None) -> Share | None:
    if condition is None:
        return None
    right = round((condition.accuracy.value or 0) * condition.questions)
    return Share.of(condition.score, right, condition.questions)


def _change(change: PairedChange | None) -> ScoreChange | None:
    if change is None:
        return None
    never = change.transitions["wrong_same"] + change.transitions["wrong_other"]
    return ScoreChange.of(
        change.delta, lost=change.lost, gained=change.gained, kept=change.transitions["right_right"], never=never
    )
