"""Ratios over one exam and their paired intervals, all from the same resampled exams."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from medllm.exam.bootstrap import (
    Floats,
    Interval,
    interval,
    mean_of_strata,
    pooled,
    resample_sums,
)

Of = Callable[[Sequence[Floats], int, int], Floats]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with the 95 % interval it was measured to; None where nothing defined it."""

    value: float | None
    interval: Interval | None


class Ratios:
    """Numerators and denominators per question, gathered first and resampled once."""

    def __init__(self, clusters: Sequence[str], strata: Sequence[object]) -> None:
        self._clusters = clusters
        self._strata = strata
        self._columns: dict[bytes, tuple[int, Floats]] = {}
        self._ratios: list[tuple[int, int]] = []
        self._sums: list[Floats] = []
        self._drawn: list[Floats] = []

    def add(self, numerator: Floats, denominator: Floats) -> int:
        """Register a ratio; its number is asked for again when its value is wanted."""
        self._ratios.append((self._column(numerator), self._column(denominator)))
        return len(self._ratios) - 1

    def _column(self, values: Floats) -> int:
        """The place of a column; equal columns (such as the points there are) are drawn once."""
        return self._columns.setdefault(values.tobytes(), (len(self._columns), values))[0]

    def resample(self, *, resamples: int, seed: int) -> None:
        """Draw the exams; every ratio sees the same ones, so differences are paired."""
        columns = np.stack([values for _, values in self._columns.values()], axis=1)
        strata = list(self._strata)
        self._sums = [
            columns[[one == stratum for one in strata]].sum(axis=0, keepdims=True) for stratum in dict.fromkeys(strata)
        ]
        self._drawn = resample_sums(columns, self._clusters, strata, resamples=resamples, seed=seed)

    def score(self, ratio: int, *, minus: int | None = None) -> Estimate:
        """The mean of the years' ratios, or the difference of two such means."""
        return self._estimate(mean_of_strata, ratio, minus)

    def share(self, ratio: int) -> Estimate:
        """The ratio over all years together."""
        return self._estimate(pooled, ratio, None)

    def stratum(self, ratio: int, place: int) -> Estimate:
        """The ratio in one stratum, by its place in order of first appearance."""
        return self._estimate(lambda sums, top, bottom: pooled(sums[place : place + 1], top, bottom), ratio, None)

    def _estimate(self, of: Of, ratio: int, minus: int | None) -> Estimate:
        value, draws = (of(sums, *self._ratios[ratio]) for sums in (self._sums, self._drawn))
        if minus is not None:
            value = value - of(self._sums, *self._ratios[minus])
            draws = draws - of(self._drawn, *self._ratios[minus])
        if np.isnan(value[0]):
            return Estimate(None, None)
        drawn = interval(draws)
        if minus is None and drawn is not None and drawn.low == drawn.high:
            top, bottom = (list(self._columns.values())[place][1] for place in self._ratios[ratio])
            drawn = wilson(top, bottom)
        return Estimate(float(value[0]), drawn)


def wilson(numerator: Floats, denominator: Floats) -> Interval | None:
    """The 95 % Wilson interval of a small part's ratio, for as many equal answers as its weights are worth.

    A part of a few questions is too small to be resampled: all right would give an interval without width.

    >>> str(wilson(np.ones(10), np.ones(10)))
    '0.722 to 1.000'
    """
    total = float(denominator.sum())
    if not total:
        return None
    worth = total**2 / float((denominator**2).sum())
    share, z = float(numerator.sum()) / total, 1.959964
    middle = (share + z**2 / (2 * worth)) / (1 + z**2 / worth)
    half = z * (share * (1 - share) / worth + z**2 / (4 * worth**2)) ** 0.5 / (1 + z**2 / worth)
    low, high = (0.0 if share == 0 else middle - half), (1.0 if share == 1 else middle + half)
    return Interval(low, high)
