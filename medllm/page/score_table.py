"""The figures of the Scores tab: shares with intervals, and the paired change that explaining makes."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from medllm.exam.estimates import Ratios
from medllm.exam.record import PROMPTS, PromptStyle
from medllm.page.filters import Mask, clusters, points, sittings
from medllm.page.results import RecordedResults

Measure = Literal["accuracy", "points"]


@dataclass(frozen=True)
class Share:
    """A score with its interval, from `right` of `asked` questions."""

    value: float
    low: float
    high: float
    right: int
    asked: int


@dataclass(frozen=True)
class ShownChange:
    """The effect of explaining on the same questions."""

    value: float
    low: float
    high: float
    lost: int
    gained: int
    kept: int
    never: int

    @property
    def retention(self) -> float:
        """The share of plainly right questions that are still right when explained."""
        return self.kept / (self.kept + self.lost) if self.kept + self.lost else math.nan

    @property
    def sense(self) -> Literal["worse", "better", "unclear"]:
        """Direction of the change if the interval excludes 0, else `unclear`."""
        return "worse" if self.high < 0 else "better" if self.low > 0 else "unclear"


@dataclass(frozen=True)
class ScoreLine:
    """One model on some questions."""

    model: str
    plain: Share | None
    explain: Share | None
    change: ShownChange | None


def score_lines(results: RecordedResults, mask: Mask, measure: Measure) -> list[ScoreLine]:
    """Return a line for every model on the questions of the mask.

    Points of whole years are the mean of the years' points / total, as in every report; points of parts of years, and
    the share of right answers, are taken over all years together.
    """
    there = np.flatnonzero(mask)
    exams = sittings(results)
    by_year = measure == "points" and bool(np.all(mask[np.isin(exams, exams[there])]))
    weights = points(results)[there] if measure == "points" else np.ones(len(there))
    ratios = _Exam(results, there, weights, Ratios(clusters(results)[there].tolist(), exams[there].tolist()), by_year)
    return [
        ScoreLine(model, ratios.share(model, "plain"), ratios.share(model, "explain"), ratios.change(model))
        for model in results.models
    ]


@dataclass(frozen=True)
class _Exam:
    """The questions of a mask, their weights, and the ratios of all models over them."""

    results: RecordedResults
    places: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64]
    ratios: Ratios
    by_year: bool

    def share(self, model: str, prompt: PromptStyle) -> Share | None:
        """Return a model's score under one prompt; None if no question with points was asked."""
        asked, right = self._asked(model, prompt), self._right(model, prompt)
        number = self.ratios.add(self.weights * right, self.weights * asked)
        found = self.ratios.score(number) if self.by_year else self.ratios.share(number)
        if found.value is None or found.interval is None:
            return None
        return Share(found.value, found.interval.low, found.interval.high, int(right.sum()), int(asked.sum()))

    def change(self, model: str) -> ShownChange | None:
        """Return the effect of explaining on a model, over the questions asked both ways."""
        both = self._asked(model, "plain") & self._asked(model, "explain")
        plain, explained = (self._right(model, prompt) & both for prompt in PROMPTS)
        earlier, later = (self.ratios.add(self.weights * right, self.weights * both) for right in (plain, explained))
        of = self.ratios.score if self.by_year else self.ratios.share
        found = of(later, minus=earlier)
        if found.value is None or found.interval is None:
            return None
        counts = {name: int(turned.sum()) for name, turned in _transitions(plain[both], explained[both]).items()}
        return ShownChange(found.value, found.interval.low, found.interval.high, **counts)

    def _asked(self, model: str, prompt: PromptStyle) -> Mask:
        return self.results.there[model, prompt][self.places]

    def _right(self, model: str, prompt: PromptStyle) -> Mask:
        return self.results.right[model, prompt][self.places] & self._asked(model, prompt)


def _transitions(plain: Mask, explained: Mask) -> dict[str, Mask]:
    return {
        "lost": plain & ~explained,
        "gained": ~plain & explained,
        "kept": plain & explained,
        "never": ~plain & ~explained,
    }
