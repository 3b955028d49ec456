"""The one bootstrap: questions drawn by vignette within each year, for every statistic of a report at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RESAMPLES = 10_000
"""Enough that the ends of a 95 % interval move by less than 0.1 points from seed to seed."""

_BLOCK = 500
_ONE_THREAD = 250_000
"""Products up to this size are not worth a second thread: waiting for it costs more than the product itself."""


@dataclass(frozen=True, slots=True)
class Interval:
    """The middle 95 % of what resampled exams give."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:.3f} to {self.high:.3f}"


def interval(draws: Floats) -> Interval | None:
    """The 95 % percentile interval of a statistic's draws; None when it was never defined."""
    defined = draws[~np.isnan(draws)]
    if not len(defined):
        return None
    low, high = np.percentile(defined, [2.5, 97.5])
    return Interval(float(low), float(high))


def resample_sums(
    columns: Floats, clusters: Sequence[str], strata: Sequence[object], *, resamples: int = RESAMPLES, seed: int = 0
) -> list[Floats]:
    """The column sums of resampled exams, one (resamples, columns) array per stratum in order of first appearance.

    Questions of one cluster (a shared vignette) are drawn together, within their stratum (the year), so that every
    resampled exam has each year's number of cases. Counts of drawn clusters times per-cluster sums is one matrix
    product, whatever the number of statistics.
    """
    generator = np.random.default_rng(seed)
    stratum_of = list(strata)
    sums = []
    for stratum in dict.fromkeys(stratum_of):
        rows = [number for number, one in enumerate(stratum_of) if one == stratum]
        sums.append(_stratum_sums(columns[rows], [clusters[number] for number in rows], resamples, generator))
    return sums


def _stratum_sums(columns: Floats, clusters: list[str], resamples: int, generator: np.random.Generator) -> Floats:
    """Resampled sums of one stratum."""
    places = {name: place for place, name in enumerate(dict.fromkeys(clusters))}
    per_cluster = np.zeros((len(places), columns.shape[1]))
    np.add.at(per_cluster, [places[name] for name in clusters], columns)
    single = per_cluster.astype(np.float32)
    count = len(places)
    sums = np.empty((resamples, columns.shape[1]))
    rows = max(1, _ONE_THREAD // single.size)
    for begin in range(0, resamples, _BLOCK):
        block = min(_BLOCK, resamples - begin)
        drawn = generator.integers(0, count, size=(block, count), dtype=np.uint16 if count < 2**16 else np.uint32)
        places_drawn = np.add(drawn, np.arange(block)[:, None] * count, dtype=np.intp).ravel()
        counts = np.bincount(places_drawn, minlength=block * count).reshape(block, count).astype(np.float32)
        for at in range(0, block, rows):
            to = min(at + rows, block)
            sums[begin + at : begin + to] = counts[at:to] @ single
    return sums


def mean_of_strata(sums: Sequence[Floats], numerator: int, denominator: int) -> Floats:
    """The mean over strata of numerator / denominator, per draw: the score as the mean of the years' scores.

    A stratum without points in a draw is left out of that draw's mean; a draw without any is not a number.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = np.stack([part[:, numerator] / part[:, denominator] for part in sums])
        return np.asarray(np.nansum(ratios, axis=0) / (~np.isnan(ratios)).sum(axis=0))


def pooled(sums: Sequence[Floats], numerator: int, denominator: int) -> Floats:
    """Numerator / denominator over all strata together, per draw."""
    top = np.sum([part[:, numerator] for part in sums], axis=0)
    bottom = np.sum([part[:, denominator] for part in sums], axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(top / bottom)
