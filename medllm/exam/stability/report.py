"""Stability under explanation: the change of each answer when the model must explain, and the one table of it."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from medllm.exam.record import PROMPTS, PromptStyle, Record
from medllm.exam.stability.condition import Condition, ExamReplies, align_replies, condition
from medllm.exam.stability.paired import (
    EXPLAINING,
    PAIRS,
    Comparison,
    Pair,
    PairedChange,
    compare_models,
    paired_change,
)
from medllm.exam.statistics import Estimate, Interval, QuestionSample, Ratio, mcnemar

HEADINGS: dict[PromptStyle, str] = {"plain": "plain", "explain": "explained", "think": "after thinking"}
"""The prompts as headings of columns."""


LOST_TO = {
    "lost_wrong": "to another answer",
    "lost_prohibited": "to a prohibited choice",
    "lost_unread": "without an answer",
    "lost_cut": "cut off",
}
"""The kinds of a lost answer, as reports describe them."""


@dataclass(frozen=True, slots=True)
class Share:
    """A score under one prompt with its 95 % interval, from `right` of `asked` questions."""

    value: float
    low: float
    high: float
    right: int
    asked: int
    unread: int | None = None
    """Replies that hold no answer; None where they were not counted."""

    @classmethod
    def of(cls, score: Estimate, right: int, asked: int, unread: int | None = None) -> "Share | None":
        """Return the share of an estimate; None for one without value or interval."""
        if score.value is None or score.interval is None:
            return None
        return cls(score.value, score.interval.low, score.interval.high, right, asked, unread)

    @property
    def estimate(self) -> Estimate:
        """The score as a number with its interval."""
        return Estimate(self.value, Interval(self.low, self.high))


@dataclass(frozen=True, slots=True)
class ScoreChange:
    """One prompt minus another over the questions asked both ways, with its paired 95 % interval."""

    value: float
    low: float
    high: float
    lost: int
    gained: int
    kept: int
    """Right both times."""
    never: int
    """Right neither time."""
    lost_unread: int | None = None
    """Of the lost ones, those whose second reply holds no answer; None in tables of before it was counted."""
    lost_cut: int | None = None
    """Of `lost_unread`, those whose reply was cut off; None where they were not counted."""
    lost_prohibited: int | None = None
    """Of the lost ones, those whose second answer holds a prohibited choice."""
    readable: int | None = None
    """Questions with an answer in both replies."""
    delta_readable: float | None = None
    """The change over these: without what is only unread, and of questions that chance did not choose."""

    @classmethod
    def of(cls, delta: Estimate, **counts: Any) -> "ScoreChange | None":  # noqa: ANN401  (the counts, and a change)
        """Return the change of an estimate; None for one without value or interval."""
        if delta.value is None or delta.interval is None:
            return None
        return cls(delta.value, delta.interval.low, delta.interval.high, **counts)

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
        """The share of questions right the first way that are right the second way too."""
        return self.kept / (self.kept + self.lost) if self.kept + self.lost else math.nan

    @property
    def lost_kinds(self) -> dict[str, int]:
        """What the lost ones became, each in one kind: another answer, a prohibited choice, none, a reply cut off.

        Empty where nothing but other answers was lost.
        """
        unread, cut, prohibited = self.lost_unread or 0, self.lost_cut or 0, self.lost_prohibited or 0
        if not unread and not prohibited:
            return {}
        wrong = self.lost - unread - prohibited
        kinds = {"lost_wrong": wrong, "lost_prohibited": prohibited, "lost_unread": unread - cut, "lost_cut": cut}
        return {kind: count for kind, count in kinds.items() if count}

    @property
    def sense(self) -> Literal["worse", "better", "unclear"]:
        """Direction of the change if the interval excludes 0, else `unclear`."""
        return "worse" if self.high < 0 else "better" if self.low > 0 else "unclear"


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One model on one exam, under the prompts that it was asked."""

    model: str
    exam: str
    """The exam's name; empty for a selection of questions of several exams."""
    shares: Mapping[PromptStyle, Share | None]
    """The scores by prompt, of those that were asked."""
    changes: Mapping[Pair, ScoreChange | None]
    """The paired changes, by the two prompts, of those that were both asked."""
    trial: bool = False
    """Whether only a part of the exam was asked: a reader of any number of the row has to know it."""

    @property
    def name(self) -> str:
        """The model's name, marked where its numbers are of a trial."""
        return f"{self.model} (trial)" if self.trial else self.model

    @property
    def plain(self) -> Share | None:
        """The score of the answer alone."""
        return self.shares.get("plain")

    @property
    def explain(self) -> Share | None:
        """The score with an explanation first."""
        return self.shares.get("explain")

    @property
    def change(self) -> ScoreChange | None:
        """Explained minus plain; None if the model was asked only one of the two ways."""
        return self.changes.get(EXPLAINING)

    @property
    def questions(self) -> int:
        """How many questions the model was asked, under the prompt that asked more."""
        return max((share.asked for share in self.shares.values() if share), default=0)

    def parts(self) -> dict[str, tuple[str, Share | ScoreChange | None]]:
        """Return every score and change of the row by the key of its column, with the column's heading."""
        scores: dict[str, tuple[str, Share | ScoreChange | None]] = {
            prompt: (HEADINGS[prompt], self.shares[prompt]) for prompt in PROMPTS if prompt in self.shares
        }
        return scores | {
            column_of(pair): (f"{HEADINGS[pair[1]]} minus {HEADINGS[pair[0]]}", self.changes[pair])
            for pair in PAIRS
            if pair in self.changes
        }

    def as_text(self) -> dict[str, Any]:
        """Return the row as a card prints it, in points of 100, by the keys of its columns."""
        row: dict[str, Any] = {"model": self.name, "exam": self.exam, "questions": self.questions}
        for key, (_, part) in self.parts().items():
            row[key] = format_estimate(part.estimate if part else None, signed=isinstance(part, ScoreChange))
        return row

    def losses(self) -> str | None:
        """Describe what explaining lost, by kind, and the change without it; None where no answer was lost unread."""
        change = self.change
        if change is None or not change.lost_kinds:
            return None
        kinds = ", ".join(f"{count} {LOST_TO[kind]}" for kind, count in change.lost_kinds.items())
        before = f"{self.name}, {self.exam}: of {change.lost + change.kept} right answers"
        parts = [f"{before} explaining lost {change.lost} ({kinds})"]
        unread = [
            f"{HEADINGS[prompt]} {share.unread}" for prompt, share in self.shares.items() if share and share.unread
        ]
        parts += [f"replies without an answer: {', '.join(unread)}"] if unread else []
        if change.delta_readable is not None:
            parts.append(f"where both replies hold an answer the change is {100 * change.delta_readable:+z.1f}")
        return "; ".join(parts)

    def as_facts(self) -> dict[str, Any]:
        """Return the numbers as flat columns, the ends of an interval and the p of a change in columns of their own.

        The columns of plain, explained and their difference are always there, those of thinking where it was asked.
        """
        row: dict[str, Any] = {"model": self.model, "exam": self.exam, "questions": self.questions, "p": None}
        row |= {f"{key}{end}": None for key in ("plain", "explain", "delta") for end in ("", "_low", "_high")}
        for key, (_, part) in self.parts().items():
            row |= {key: part and part.value, f"{key}_low": part and part.low, f"{key}_high": part and part.high}
            if isinstance(part, ScoreChange):
                row["p" if key == "delta" else f"{key}_p"] = part.p
        return row

    def to_json(self) -> dict[str, Any]:
        """Return the whole row as JSON values: `shares` by prompt, `changes` as a list with both prompts."""
        changes = [
            {"before": before, "after": after, **(asdict(change) if change else {})}
            for (before, after), change in self.changes.items()
        ]
        shares = {prompt: share and asdict(share) for prompt, share in self.shares.items()}
        names = {"model": self.model, "exam": self.exam, "trial": self.trial}
        return {**names, "shares": shares, "changes": changes}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "ScoreRow":
        """Read what `to_json` returns."""
        shares: dict[PromptStyle, Share | None] = {
            prompt: Share(**row["shares"][prompt]) if row["shares"][prompt] else None
            for prompt in PROMPTS
            if prompt in row["shares"]
        }
        changes: dict[Pair, ScoreChange | None] = {}
        for change in row["changes"]:
            values = {name: value for name, value in change.items() if name not in ("before", "after")}
            changes[change["before"], change["after"]] = ScoreChange(**values) if values else None
        return cls(row["model"], row["exam"], shares, changes, row["trial"])


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column of a table of rows."""

    key: str
    """The column's key in `ScoreRow.as_text`."""
    heading: str


def columns(rows: Iterable[ScoreRow]) -> list[TableColumn]:
    """Return the columns of scores and changes that these rows have, in one order: whatever was asked is shown."""
    headings = {key: heading for row in rows for key, (heading, _) in row.parts().items()}
    order = [*PROMPTS, *map(column_of, PAIRS)]
    return [TableColumn(key, headings[key]) for key in order if key in headings]


def column_of(pair: Pair) -> str:
    """Return the key of a change's column.

    >>> column_of(("plain", "explain")), column_of(("plain", "think"))
    ('delta', 'think_minus_plain')
    """
    before, after = pair
    return "delta" if pair == EXPLAINING else f"{after}_minus_{before}"


def describe_row(row: ScoreRow) -> str:
    """Describe a row in one line, as it becomes known while others are still asked."""
    cells = row.as_text()
    shown = [f"{column.key} {cells[column.key]}" for column in columns([row]) if cells[column.key] != "-"]
    return f"{cells['model']} on {cells['exam']}, {cells['questions']} questions: {', '.join(shown)}"


def describe_comparison(comparison: Comparison, p: str) -> str:
    """Describe in one line how a model differs from another on the same questions; `p` is the p value as text."""
    difference, trial = format_estimate(comparison.difference, signed=True), " (trial)" if comparison.trial else ""
    names = f"{comparison.second} minus {comparison.first}, {comparison.benchmark}, {comparison.prompt}"
    return f"{names}: {difference}, {comparison.questions} questions, p {p}{trial}"


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
class ModelStability:
    """One model on one exam."""

    benchmark: str
    model: str
    conditions: dict[PromptStyle, Condition]
    changes: dict[Pair, PairedChange]
    """By the two prompts, of those that were both asked."""
    trial: bool
    """Whether only a part of the exam was asked."""

    @property
    def change(self) -> PairedChange | None:
        """What explaining does; None if the model was asked only one of the two ways."""
        return self.changes.get(EXPLAINING)


@dataclass(frozen=True, slots=True)
class StabilityReport:
    """All models and all comparisons."""

    models: list[ModelStability]
    comparisons: list[Comparison]


def stability_report(records: Iterable[Record]) -> StabilityReport:
    """Build the stability report of any number of exams and models."""
    models: list[ModelStability] = []
    comparisons: list[Comparison] = []
    for exam in align_replies(records):
        sample = exam.sample
        models += [_stability(exam, model, sample) for model in exam.models]
        comparisons += compare_models(exam, sample)
    return StabilityReport(models, comparisons)


def _stability(exam: ExamReplies, model: str, sample: QuestionSample) -> ModelStability:
    conditions: dict[PromptStyle, Condition] = {}
    for prompt in PROMPTS:
        samples = exam.replies.get((model, prompt))
        if samples is not None:
            correct, there = exam.column(samples, lambda record: float(record.correct))
            score, accuracy = sample.score(exam.points(samples, there)), sample.share(Ratio(correct, there))
            conditions[prompt] = condition(samples, score, accuracy)
    by_pair = {pair: paired_change(exam, model, sample, pair) for pair in PAIRS}
    changes = {pair: change for pair, change in by_pair.items() if change is not None}
    return ModelStability(exam.benchmark, model, conditions, changes, exam.is_trial(model))


def score_table(report: StabilityReport) -> list[ScoreRow]:
    """Return a row for every model and exam of a report, in its order."""
    return [_score_row(model) for model in report.models]


def _score_row(model: ModelStability) -> ScoreRow:
    """Return the row of one model on one exam."""
    shares = {prompt: _share(condition) for prompt, condition in model.conditions.items()}
    changes = {pair: _change(change) for pair, change in model.changes.items()}
    return ScoreRow(model.model, model.benchmark, shares, changes, model.trial)


def _share(condition: Condition) -> Share | None:
    right = round((condition.accuracy.value or 0) * condition.questions)
    unread = sum(count for status, count in condition.statuses.items() if status not in ("answered", "wrong_count"))
    return Share.of(condition.score, right, condition.questions, unread)


def _change(change: PairedChange) -> ScoreChange | None:
    never = change.transitions["wrong_same"] + change.transitions["wrong_other"]
    return ScoreChange.of(
        change.delta,
        lost=change.lost,
        gained=change.gained,
        kept=change.transitions["right_right"],
        never=never,
        lost_unread=change.lost_unread,
        lost_cut=change.lost_cut,
        lost_prohibited=change.lost_prohibited,
        readable=change.readable,
        delta_readable=change.delta_readable.value,
    )
