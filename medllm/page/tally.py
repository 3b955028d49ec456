"""The figures of the Scores tab: shares with intervals, and the paired change that explaining makes."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from medllm.exam.record import PromptStyle
from medllm.page.narrow import Mask, clusters, points
from medllm.page.results import Results

Measure = Literal["accuracy", "points"]
Z = 1.959963984540054
"""The two-sided 95 % point of the normal distribution."""


@dataclass(frozen=True)
class Share:
    """A score with its interval; `right` of `asked` questions are the ones behind it."""

    value: float
    low: float
    high: float
    right: int
    asked: int


@dataclass(frozen=True)
class Change:
    """What explaining does on the same questions."""

    value: float
    low: float
    high: float
    lost: int
    gained: int
    kept: int
    never: int

    @property
    def retention(self) -> float:
        """Of the questions right when asked plainly, the share still right when explained."""
        return self.kept / (self.kept + self.lost) if self.kept + self.lost else math.nan

    @property
    def sense(self) -> Literal["worse", "better", "unclear"]:
        """Which way it goes, where the interval leaves no doubt."""
        return "worse" if self.high < 0 else "better" if self.low > 0 else "unclear"


@dataclass(frozen=True)
class Line:
    """One model on some questions."""

    model: str
    plain: Share | None
    explain: Share | None
    change: Change | None


def tally(results: Results, mask: Mask, measure: Measure) -> list[Line]:
    """Every model on the questions of the mask."""
    weights = points(results) if measure == "points" else np.ones(len(results.keys))
    return [
        Line(
            model,
            _share(results, model, "plain", mask, weights),
            _share(results, model, "explain", mask, weights),
            _change(results, model, mask, weights),
        )
        for model in results.models
    ]


def _share(
    results: Results, model: str, prompt: PromptStyle, mask: Mask, weights: npt.NDArray[np.float64]
) -> Share | None:
    asked = mask & results.there[model, prompt]
    total = float(weights[asked].sum())
    if not total:
        return None
    right = asked & results.right[model, prompt]
    share = float(weights[right].sum()) / total
    effective = total**2 / float((weights[asked] ** 2).sum())
    low, high = wilson(share, effective)
    return Share(share, low, high, int(right.sum()), int(asked.sum()))


def wilson(share: float, size: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a share; with unequal points `size` is the effective number of questions.

    >>> [round(end, 4) for end in wilson(0.8, 100)]
    [0.7112, 0.8666]
    """
    spread = 1 + Z * Z / size
    middle = (share + Z * Z / (2 * size)) / spread
    half = Z * math.sqrt(share * (1 - share) / size + Z * Z / (4 * size * size)) / spread
    return max(0.0, middle - half), min(1.0, middle + half)


def _change(results: Results, model: str, mask: Mask, weights: npt.NDArray[np.float64]) -> Change | None:
    both = mask & results.there[model, "plain"] & results.there[model, "explain"]
    total = float(weights[both].sum())
    if not total:
        return None
    plain, explained = results.right[model, "plain"][both], results.right[model, "explain"][both]
    difference = explained.astype(np.float64) - plain.astype(np.float64)
    value = float((weights[both] * difference).sum()) / total
    low, high = paired(difference, weights[both], clusters(results)[both])
    counts = {name: int(found.sum()) for name, found in _transitions(plain, explained).items()}
    return Change(value, low, high, **counts)


def paired(
    difference: npt.NDArray[np.float64], weights: npt.NDArray[np.float64], cluster: npt.NDArray[np.int64]
) -> tuple[float, float]:
    """The 95 % interval of a weighted mean of paired differences; questions of one vignette count as one draw.

    One imagined question lost and one gained are added (Bonett and Price), so that no change in ten questions is not
    an interval of no width.

    >>> change = np.array([-1.0] * 5 + [1.0] * 2 + [0.0] * 13)
    >>> [round(end, 3) for end in paired(change, np.ones(20), np.arange(20))]
    [-0.397, 0.125]
    """
    mean = float(weights.mean())
    total = float(weights.sum()) + 2 * mean
    middle = float((weights * difference).sum()) / total
    sums = np.bincount(cluster - cluster.min(), weights=weights * (difference - middle))
    imagined = mean**2 * ((1 - middle) ** 2 + (-1 - middle) ** 2)
    error = math.sqrt(float((sums**2).sum()) + imagined) / total
    return max(-1.0, middle - Z * error), min(1.0, middle + Z * error)


def _transitions(plain: Mask, explained: Mask) -> dict[str, Mask]:
    return {
        "lost": plain & ~explained,
        "gained": ~plain & explained,
        "kept": plain & explained,
        "never": ~plain & ~explained,
    }
