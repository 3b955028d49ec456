"""The figures of the Scores tab: shares with intervals, and the paired change that explaining makes."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from medllm.exam.record import PROMPTS, PromptStyle
from medllm.exam.stability.table import ScoreChange, ScoreRow, Share
from medllm.exam.statistics import Estimate, QuestionSample, Ratio
from medllm.page.filters import Mask, clusters, points, sittings
from medllm.page.results import RecordedResults

Measure = Literal["accuracy", "points"]


def score_lines(results: RecordedResults, mask: Mask, measure: Measure) -> list[ScoreRow]:
    """Return a line for every model on the questions of the mask.

    Points of whole years are the mean of the years' points / total, as in every report; points of parts of years, and
    the share of right answers, are taken over all years together.
    """
    there = np.flatnonzero(mask)
    exams = sittings(results)
    by_year = measure == "points" and bool(np.all(mask[np.isin(exams, exams[there])]))
    weights = points(results)[there] if measure == "points" else np.ones(len(there))
    exam = _Exam(
        results, there, weights, QuestionSample(clusters(results)[there].tolist(), exams[there].tolist()), by_year
    )
    return [
        ScoreRow(model, "", exam.share(model, "plain"), exam.share(model, "explain"), exam.change(model))
        for model in results.models
    ]


@dataclass(frozen=True)
class _Exam:
    """The questions of a mask, their weights, and the estimates of all models over them."""

    results: RecordedResults
    places: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64]
    sample: QuestionSample
    by_year: bool

    def share(self, model: str, prompt: PromptStyle) -> Share | None:
        """Return a model's score under one prompt; None if no question with points was asked."""
        asked, right = self._asked(model, prompt), self._right(model, prompt)
        score = self._estimate(Ratio(self.weights * right, self.weights * asked))
        return Share.of(score, int(right.sum()), int(asked.sum()))

    def change(self, model: str) -> ScoreChange | None:
        """Return the effect of explaining on a model, over the questions asked both ways."""
        both = self._asked(model, "plain") & self._asked(model, "explain")
        plain, explained = (self._right(model, prompt) & both for prompt in PROMPTS)
        earlier, later = (Ratio(self.weights * right, self.weights * both) for right in (plain, explained))
        counts = {name: int(turned.sum()) for name, turned in _transitions(plain[both], explained[both]).items()}
        return ScoreChange.of(self._estimate(later, minus=earlier), **counts)

    def _estimate(self, ratio: Ratio, minus: Ratio | None = None) -> Estimate:
        return self.sample.score(ratio, minus=minus) if self.by_year else self.sample.share(ratio, minus=minus)

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
