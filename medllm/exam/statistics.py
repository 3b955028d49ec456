"""Statistics of exams: ratios with 95 % intervals, paired changes, McNemar's test and Holm's correction.

Intervals respect vignettes (clusters), years (strata) and unequal points.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import sqrt

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

Z = 1.959963984540054
"""The two-sided 95 % point of the normal distribution."""
INTERVALS = (
    "95 % intervals are of exams like these: they show how far a number would move with other questions of the same",
    "kind in the same years, and nothing of another training of the same model.",
)
"""What an interval is an interval of, in one sentence for all reports."""
_LIKENESS = 0.25
"""The correlation within a vignette that is assumed before the answers give an estimate."""
_LIKENESS_WORTH = 15.0
"""Number of answers of the rarer kind that weigh as much as the assumed correlation."""
_CAUTION = 0.3
"""Standard errors added to the estimated correlation, whose own error would narrow the interval."""
_SPREAD_WORTH = 10.0
"""Answers of the rarer kind needed to believe that they are among the heavy (or the light) questions."""
_ENOUGH_A_YEAR = 10
"""Questions that every year needs before its own mean is distinguished from the whole."""
_STEPS = 40


@dataclass(frozen=True, slots=True)
class Interval:
    """The ends of a 95 % interval."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:.3f} to {self.high:.3f}"


@dataclass(frozen=True, slots=True)
class ClusteredSample:
    """The questions behind a number: each one's weight, shared case and year."""

    weights: Floats
    """One weight per question, positive; only their ratios count."""
    clusters: Codes
    """Equal numbers for questions that share a vignette."""
    strata: Codes
    """Equal numbers for questions of one year; the years are fixed, not drawn."""


def share_interval(values: Floats, sample: ClusteredSample) -> Interval:
    """Compute the interval of a weighted mean of answers, each from 0 (wrong) to 1 (right).

    Each end is the farther one of two: Wilson's, and the mid-p limit of the binomial distribution, which keeps the
    misses of scores near 0 and 1 from falling on one side. Both are taken at the effective number of questions.

    >>> ten = ClusteredSample(np.ones(10), np.arange(10), np.zeros(10, dtype=np.int64))
    >>> str(share_interval(np.ones(10), ten))
    '0.722 to 1.000'
    """
    weights = sample.weights / sample.weights.sum()
    share = min(1.0, max(0.0, float(weights @ values)))
    size = effective_size(values, sample)
    interval = wilson(share, size)
    if share in (0.0, 1.0):
        return interval
    if share < 0.5:
        return Interval(min(interval.low, _mid_p_low(share, size)), interval.high)
    return Interval(interval.low, max(interval.high, 1 - _mid_p_low(1 - share, size)))


def change_interval(changes: Floats, sample: ClusteredSample) -> Interval:
    """Compute Tango's score interval of a weighted mean of paired changes, each from -1 (lost) to 1 (gained).

    The interval has width even where no question changed, since few questions cannot show that none ever would.

    >>> twelve = ClusteredSample(np.ones(12), np.arange(12), np.zeros(12, dtype=np.int64))
    >>> str(change_interval(np.zeros(12), twelve))
    '-0.242 to 0.242'
    """
    weights = sample.weights / sample.weights.sum()
    lost, gained = float(weights @ np.maximum(-changes, 0)), float(weights @ np.maximum(changes, 0))
    return tango(lost, gained, effective_size(changes, sample))


def effective_size(values: Floats, sample: ClusteredSample) -> float:
    """Return the number of equal, independent questions that determine the weighted mean of these values as well.

    Unequal weights and correlated answers within vignettes reduce it (Kish). The correlation within vignettes
    is estimated from the answers and shrunk towards a common value where few answers could show it.
    """
    weights = sample.weights / sample.weights.sum()
    equal = float(weights @ weights)
    per_cluster = np.bincount(sample.clusters, weights=weights)
    shared = max(0.0, float(per_cluster @ per_cluster) - equal)
    mean = float(weights @ values)
    spread = float(weights @ (values - mean) ** 2)
    rare = _rarer(values)
    residual, years = _residual(values, weights, sample.strata, mean)
    own, together = 1.0, 0.0
    if spread > 1e-12:
        pull = weights * residual
        of_own = float(pull @ pull)
        seen = of_own / (spread * equal) * (1 - equal) / max(1 - years * equal, 0.1)
        own = (rare * seen + _SPREAD_WORTH) / (rare + _SPREAD_WORTH)
        if shared > 1e-12:
            per_case = np.bincount(sample.clusters, weights=pull)
            within = (float(per_case @ per_case) - of_own) / (spread * shared)
            together = _unbiased(within, years * equal, years * shared)
    if shared <= 1e-12:
        return 1 / (equal * own)
    weight = rare * shared / equal + _LIKENESS_WORTH
    likeness = ((weight - _LIKENESS_WORTH) * together + _LIKENESS_WORTH * _LIKENESS) / weight + _CAUTION / sqrt(weight)
    return 1 / (equal * own + shared * min(1.0, max(0.0, likeness)))


def _rarer(values: Floats) -> float:
    """Return how many values differ from the commonest one."""
    _, counts = np.unique(values, return_counts=True)
    return float(counts.sum() - counts.max())


def _residual(values: Floats, weights: Floats, strata: Codes, mean: float) -> tuple[Floats, int]:
    """Return each value less its year's mean, and the number of years; 1 if the years are too small."""
    sizes = np.bincount(strata)
    sizes = sizes[sizes > 0]
    if len(sizes) < 2 or sizes.min() < _ENOUGH_A_YEAR:
        return values - mean, 1
    sums = np.bincount(strata, weights=weights * values)
    totals = np.bincount(strata, weights=weights)
    means = np.divide(sums, totals, out=np.zeros_like(sums), where=totals > 0)
    return values - means[strata], len(sizes)


def _unbiased(within: float, equal: float, shared: float) -> float:
    """Correct a correlation from residuals for the mean that was subtracted from them."""
    return min(1.0, (within * (1 - equal) + equal) / max(1 - shared * (1 - within), 0.1))


def wilson(share: float, size: float) -> Interval:
    """Compute Wilson's interval of a share of `size` questions (E. B. Wilson, 1927).

    >>> str(wilson(0.8, 100))
    '0.711 to 0.867'
    """
    scale = 1 + Z * Z / size
    middle = (share + Z * Z / (2 * size)) / scale
    half = Z * sqrt(share * (1 - share) / size + Z * Z / (4 * size * size)) / scale
    low, high = (0.0 if share == 0 else middle - half), (1.0 if share == 1 else middle + half)
    return Interval(low, high)


def _mid_p_low(share: float, size: float) -> float:
    """Return the share below which this one, or a larger one, has a mid-p of less than 2.5 %."""
    # Here, not above: `medllm --help` must not wait 0.1 s for scipy.
    from scipy.special import betainc

    right, wrong = share * size, size - share * size
    low, high = 0.0, share
    for _ in range(_STEPS):
        at = (low + high) / 2
        if betainc(right, wrong + 1, at) + betainc(right + 1, wrong, at) < 0.05:
            low = at
        else:
            high = at
    return low


def tango(lost: float, gained: float, size: float) -> Interval:
    """Compute Tango's score interval of a paired difference (Statistics in Medicine 17, 1998).

    Args:
        lost: The share of questions that only the first condition got right, 0 to 1.
        gained: The share that only the second got right.
        size: The number of questions, or of the equal, independent ones that determine the difference as well.

    >>> str(tango(2 / 50, 12 / 50, 50))
    '0.061 to 0.345'
    """
    change = gained - lost

    def far(delta: float) -> bool:
        """Return whether the observed change is more than 1.96 standard errors away from this one."""
        slope = (2 - change) * delta - (lost + gained)
        likeliest = (sqrt(max(0.0, slope * slope + 8 * lost * delta * (1 - delta))) - slope) / 4
        variance = max(0.0, 2 * likeliest + delta * (1 - delta))
        return (change - delta) ** 2 * size > Z * Z * variance

    ends = []
    for end in (-1.0, 1.0):
        inner, outer = change, end
        for _ in range(_STEPS):
            at = (inner + outer) / 2
            inner, outer = (inner, at) if far(at) else (at, outer)
        ends.append(outer)
    return Interval(*ends)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval; None where the number is undefined."""

    value: float | None
    interval: Interval | None


def codes(names: Sequence[object]) -> Codes:
    """Return a whole number for each name, in order of first appearance; equal names share one number.

    >>> codes(["case", "b", "case"]).tolist()
    [0, 1, 0]
    """
    places: dict[object, int] = {}
    return np.array([places.setdefault(name, len(places)) for name in names], dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Ratio:
    """Points earned and points available, question by question."""

    earned: Floats
    available: Floats


class QuestionSample:
    """The questions of an exam as a sample: the estimates of any ratio over them.

    Args:
        clusters: The vignette of each question.
        strata: The year of each question.
    """

    def __init__(self, clusters: Sequence[object], strata: Sequence[object]) -> None:
        self._clusters = codes(clusters)
        self._strata = codes(strata)

    def score(self, ratio: Ratio, *, minus: Ratio | None = None) -> Estimate:
        """Return the mean of the years' ratios, or the paired difference of two such means over the same questions."""
        return self._estimate(ratio, minus, by_year=True)

    def share(self, ratio: Ratio, *, minus: Ratio | None = None) -> Estimate:
        """Return the ratio over all years together, or the paired difference of two."""
        return self._estimate(ratio, minus, by_year=False)

    def part(self, ratio: Ratio, members: Floats) -> Estimate:
        """Return the ratio over the questions where `members` is above 0: a year, a section, a subject."""
        return self._estimate(ratio, None, by_year=False, members=members)

    def _estimate(self, ratio: Ratio, minus: Ratio | None, *, by_year: bool, members: Floats | None = None) -> Estimate:
        top, bottom = ratio.earned, ratio.available
        there = bottom > 0 if members is None else (bottom > 0) & (members > 0)
        if not there.any():
            return Estimate(None, None)
        years = self._strata[there] if by_year else np.zeros(int(there.sum()), dtype=np.int64)
        weights = bottom[there]
        value = _mean_of_years(top[there], weights, years)
        totals = np.bincount(years, weights=weights)
        sample = ClusteredSample(weights / totals[years], self._clusters[there], self._strata[there])
        answers = top[there] / weights
        if minus is None:
            return Estimate(value, share_interval(answers, sample))
        if not np.array_equal(minus.available, bottom):
            raise ValueError("a paired difference needs the same questions on both sides")
        earlier = minus.earned
        change = value - _mean_of_years(earlier[there], weights, years)
        return Estimate(change, change_interval(answers - earlier[there] / weights, sample))


def _mean_of_years(top: Floats, bottom: Floats, years: Codes) -> float:
    """Return the mean over years of points earned / points available; a year without questions is left out."""
    sums, totals = np.bincount(years, weights=top), np.bincount(years, weights=bottom)
    ratios = sums[totals > 0] / totals[totals > 0]
    return float(ratios.sum() / len(ratios))


def mcnemar(lost: int, gained: int) -> float:
    """Compute the exact two-sided p of McNemar's test on the questions that only one of two conditions got right.

    >>> mcnemar(8, 1)
    0.0390625
    """
    discordant = lost + gained
    if discordant == 0:
        return 1.0
    ways = tail = 1
    for count in range(min(lost, gained)):
        ways = ways * (discordant - count) // (count + 1)
        tail += ways
    return min(1.0, float(Fraction(2 * tail, 2**discordant)))


def holm(values: Sequence[float]) -> list[float]:
    """Correct p values for their number by Holm's step-down rule; the order is kept.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected = [0.0] * len(values)
    highest = 0.0
    for step, place in enumerate(sorted(range(len(values)), key=lambda index: values[index])):
        highest = max(highest, min(1.0, (len(values) - step) * values[place]))
        corrected[place] = highest
    return corrected
