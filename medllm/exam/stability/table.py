"""The one table of plain, explained and their difference: what cards, command line, page and figure show."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from medllm.exam.record import PROMPTS, PromptStyle
from medllm.exam.statistics import Estimate, Interval, mcnemar


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
            "model": self.model,
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


def format_estimate(estimate: Estimate | None, *, signed: bool = False) -> str:
    """Return a number in points of 100 with its interval, 67.9 (60.1 to 74.0), or a dash where there is none."""
    if estimate is None or estimate.value is None:
        return "-"
    sign = "+" if signed else ""
    value = f"{100 * estimate.value:{sign}z.1f}"
    if estimate.interval is None:
        return value
    return f"{value} ({100 * estimate.interval.low:{sign}z.1f} to {100 * estimate.interval.high:{sign}z.1f})"
