"""Ratios over one exam, each with its interval from medllm/exam/intervals.py."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medllm.exam.intervals import ClusteredSample, Codes, Floats, Interval, change_interval, share_interval


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


class Ratios:
    """Points earned and points available, question by question, and the estimates from them.

    Args:
        clusters: The vignette of each question.
        strata: The year of each question.
    """

    def __init__(self, clusters: Sequence[object], strata: Sequence[object]) -> None:
        self._clusters = codes(clusters)
        self._strata = codes(strata)
        self._ratios: list[tuple[Floats, Floats]] = []

    def add(self, numerator: Floats, denominator: Floats) -> int:
        """Register a ratio; `score`, `share` and `part` take the returned number."""
        self._ratios.append((numerator, denominator))
        return len(self._ratios) - 1

    def score(self, ratio: int, *, minus: int | None = None) -> Estimate:
        """Return the mean of the years' ratios, or the paired difference of two such means over the same questions."""
        return self._estimate(ratio, minus, by_year=True)

    def share(self, ratio: int, *, minus: int | None = None) -> Estimate:
        """Return the ratio over all years together, or the paired difference of two."""
        return self._estimate(ratio, minus, by_year=False)

    def part(self, ratio: int, members: Floats) -> Estimate:
        """Return the ratio over the questions where `members` is above 0: a year, a section, a subject."""
        return self._estimate(ratio, None, by_year=False, members=members)

    def _estimate(self, ratio: int, minus: int | None, *, by_year: bool, members: Floats | None = None) -> Estimate:
        top, bottom = self._ratios[ratio]
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
        earlier, same = self._ratios[minus]
        if not np.array_equal(same, bottom):
            raise ValueError("a paired difference needs the same questions on both sides")
        change = value - _mean_of_years(earlier[there], weights, years)
        return Estimate(change, change_interval(answers - earlier[there] / weights, sample))


def _mean_of_years(top: Floats, bottom: Floats, years: Codes) -> float:
    """Return the mean over years of points earned / points available; a year without questions is left out."""
    sums, totals = np.bincount(years, weights=top), np.bincount(years, weights=bottom)
    ratios = sums[totals > 0] / totals[totals > 0]
    return float(ratios.sum() / len(ratios))
