"""How often the 95 % intervals of a score and of a paired change hold the truth, by simulation with fixed seeds.

Run: python benchmarks/coverage.py [--draws 2000] [--engine intervals|bootstrap]
     python benchmarks/coverage.py --least      how little the interval of one truth can cover, without vignettes

`bootstrap` is for the code up to 0ac7df1, whose engine it was: run this file there with that code's folder as
PYTHONPATH. In each line: questions, truth, then the coverage in percent of every arrangement, with the misses below
and above the interval behind it.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]
Ends = tuple[float, float]
Engine = Callable[[Floats, Floats, Numbers], Ends]

COUNTS = (10, 12, 20, 50, 100, 400, 2000)
SCORES = (0.02, 0.2, 0.5, 0.8, 0.9, 0.95, 0.98, 0.995)
CHANGES = ((0.002, 0.002), (0.01, 0.0), (0.068, 0.028), (0.05, 0.01), (0.1, 0.1), (0.3, 0.05), (0.3, 0.3))
"""The shares of questions that explaining loses and gains."""
ARRANGEMENTS = (("alone", 0.0), ("third", 0.2), ("third", 0.4), ("threes", 0.0), ("threes", 0.2), ("threes", 0.4))
"""How questions share vignettes (none, a third of them, or all, in threes), and how alike the answers in one are."""
POINTS = ("equal", "eighth", "half")
"""Which questions are worth three points instead of one: none, one in eight (as in IgakuQA), or every second."""
BEST_CELLS = (
    ("score", 100, 0.98, "alone", 0.0, "equal"),
    ("score", 400, 0.995, "third", 0.4, "eighth"),
    ("score", 50, 0.9, "threes", 0.4, "equal"),
    ("change", 12, (0.068, 0.028), "alone", 0.0, "equal"),
    ("change", 50, (0.05, 0.01), "threes", 0.2, "half"),
    ("change", 2000, (0.01, 0.0), "third", 0.4, "eighth"),
)
"""Cells that the tests look at: there the resampling of before covered least."""


@dataclass(frozen=True)
class Coverage:
    """Percent of intervals that hold the truth, and that lie wholly below and above it."""

    covered: float
    below: float
    above: float

    def __str__(self) -> str:
        return f"{self.covered:5.1f} ({self.below:.1f}/{self.above:.1f})"


def vignettes(count: int, arrangement: str) -> Numbers:
    """A number for each question; those of one vignette share it."""
    shared = {"alone": 0, "third": count // 9, "threes": count // 3}[arrangement]
    return np.concatenate([np.repeat(np.arange(shared), 3), np.arange(shared, count - 2 * shared)])


def points(count: int, kind: str) -> Floats:
    """What each question is worth."""
    heavy = {"equal": count + 1, "eighth": 8, "half": 2}[kind]
    return np.where(np.arange(count) % heavy == heavy - 1, 3.0, 1.0)


def outcomes(
    shares: tuple[float, ...], cases: Numbers, alike: float, draws: int, chance: np.random.Generator
) -> Numbers:
    """Which of several outcomes each question has, (draws, questions); within a vignette they correlate by `alike`.

    With probability sqrt(alike) a question takes its vignette's outcome, else one of its own.
    """
    ends = np.cumsum(shares)[:-1]
    own = np.searchsorted(ends, chance.random((draws, len(cases))), side="right")
    common = np.searchsorted(ends, chance.random((draws, int(cases.max()) + 1)), side="right")[:, cases]
    return np.where(chance.random(own.shape) < np.sqrt(alike), common, own)


def coverage_of_score(
    count: int, truth: float, arrangement: str, alike: float, kind: str, draws: int, engine: Engine | None = None
) -> Coverage:
    """The coverage of a score's interval."""
    cases = vignettes(count, arrangement)
    found = outcomes((truth, 1 - truth), cases, alike, draws, np.random.default_rng(2026))
    return _covered((found == 0).astype(float), truth, points(count, kind), cases, engine or score_engine())


def coverage_of_change(
    count: int, truth: tuple[float, float], arrangement: str, alike: float, kind: str, draws: int,
    engine: Engine | None = None,
) -> Coverage:  # fmt: skip
    """The coverage of a paired change's interval; `truth` is the shares of questions lost and gained."""
    cases = vignettes(count, arrangement)
    lost, gained = truth
    found = outcomes((lost, gained, 1 - lost - gained), cases, alike, draws, np.random.default_rng(2026))
    changes = np.select([found == 0, found == 1], [-1.0, 1.0], 0.0)
    return _covered(changes, gained - lost, points(count, kind), cases, engine or change_engine())


def _covered(rows: Floats, truth: float, weights: Floats, cases: Numbers, engine: Engine) -> Coverage:
    _, first, same = np.unique(_kinds(rows, weights, cases), axis=0, return_index=True, return_inverse=True)
    ends = np.array([engine(rows[place], weights, cases) for place in first])[same.ravel()]
    below, above = ((ends[:, 1] < truth - 1e-9).mean(), (ends[:, 0] > truth + 1e-9).mean())
    return Coverage(*(float(100 * share) for share in (1 - below - above, below, above)))


def _kinds(rows: Floats, weights: Floats, cases: Numbers) -> Numbers:
    """Each exam as its sorted vignettes, each of which counts its outcomes by weight: exams of one kind are alike."""
    codes = 4 ** (rows + 1 + 3 * (weights > 1)).astype(np.int64)
    per_case = np.zeros((len(rows), int(cases.max()) + 1), dtype=np.int64)
    np.add.at(per_case.T, cases, codes.T)
    return np.sort(per_case, axis=1)


def score_engine() -> Engine:
    """The interval of a score as medllm gives it."""
    from medllm.exam.statistics import ClusteredSample, share_interval

    def ends(values: Floats, weights: Floats, cases: Numbers) -> Ends:
        found = share_interval(values, ClusteredSample(weights, cases, np.zeros(len(cases), dtype=np.int64)))
        return found.low, found.high

    return ends


def change_engine() -> Engine:
    """The interval of a paired change as medllm gives it."""
    from medllm.exam.statistics import ClusteredSample, change_interval

    def ends(values: Floats, weights: Floats, cases: Numbers) -> Ends:
        found = change_interval(values, ClusteredSample(weights, cases, np.zeros(len(cases), dtype=np.int64)))
        return found.low, found.high

    return ends


def bootstrap_engine(*, paired: bool) -> Engine:
    """The engine of before: 1,000 resampled exams, and Wilson's interval where no draw of a score differed."""
    engine: Any = import_module("medllm.exam.bootstrap")  # only a checkout of before has it
    fallback: Any = import_module("medllm.exam.statistics")

    def ends(values: Floats, weights: Floats, cases: Numbers) -> Ends:
        columns = np.stack([values * weights, weights], axis=1)
        drawn = engine.resample_sums(columns, [str(case) for case in cases], [0] * len(cases), resamples=1000)
        found = engine.interval(engine.pooled(drawn, 0, 1))
        if not paired and found.low == found.high:
            found = fallback.wilson(values * weights, weights)
        return found.low, found.high

    return ends


def chances(count: int, truth: float | tuple[float, float]) -> Floats:
    """How likely each outcome of an exam without vignettes is: the right answers, or the questions lost and gained."""
    from scipy.stats import binom, multinomial

    if isinstance(truth, float):
        return np.asarray(binom.pmf(np.arange(count + 1), count, truth))
    most = min(count, int(count * max(truth) + 12 * np.sqrt(count * max(truth)) + 15))  # beyond, 12 standard deviations
    lost, gained = (grid.ravel() for grid in np.meshgrid(np.arange(most + 1), np.arange(most + 1)))
    found = np.stack([lost, gained, count - lost - gained], axis=1)[lost + gained <= count]
    return np.asarray(multinomial.pmf(found, count, (*truth, 1 - sum(truth))))


def least_coverage(likely: Floats, goal: float = 0.93) -> float:
    """The least coverage, from the goal on, of an interval that leaves out no outcome as likely as one it keeps."""
    falling = np.sort(likely)[::-1]
    ends = np.append(falling[:-1] - falling[1:] > 1e-9 * falling[:-1], True)
    covered = np.cumsum(falling)[ends]
    return float(covered[np.argmax(covered >= goal)])


def least_table(draws: int) -> Iterator[str]:
    """Of the cells without vignettes and with equal points that lie above 98 %, how little could be covered there."""
    yield f"{'':<7}{'questions':>9}  {'truth':<15}{'covered':>8}{'commonest outcome':>19}{'least':>7}"
    above = forced = 0
    measured: tuple[tuple[str, Any, Callable[..., Coverage]], ...] = (
        ("score", SCORES, coverage_of_score),
        ("change", CHANGES, coverage_of_change),
    )
    for what, truths, one in measured:
        for count in COUNTS:
            for truth in truths:
                covered = one(count, truth, "alone", 0.0, "equal", draws // 4 if count > 1000 else draws).covered
                if covered > 98:
                    likely = chances(count, truth)
                    least = 100 * least_coverage(likely)
                    above, forced = above + 1, forced + (least > 98)
                    numbers = f"{covered:>8.1f}{100 * likely.max():>19.1f}{least:>7.1f}"
                    yield f"{what:<7}{count:>9}  {truth!s:<15}{numbers}"
    yield f"{above} cells above 98 %, {forced} where no such interval covers between 93 and 98 %"


def table(draws: int, engines: tuple[Engine, Engine], kinds: tuple[str, ...]) -> Iterator[str]:
    """The table, line by line, then how many cells lie outside 93 to 98 %."""
    everything: list[Coverage] = []
    heads = "".join(f"{f'{name} {alike}':<20}" for name, alike in ARRANGEMENTS)
    for kind in kinds:
        measured: tuple[tuple[str, Any, Callable[..., Coverage]], ...] = (
            ("score", SCORES, coverage_of_score),
            ("change", CHANGES, coverage_of_change),
        )
        for (what, truths, one), engine in zip(measured, engines, strict=True):
            yield f"{what}, points {kind}"
            yield f"{'questions':>9}  {'truth':<15}{heads}"
            for count in COUNTS:
                few = draws // 4 if count > 1000 else draws
                for truth in truths:
                    row = [one(count, truth, *where, kind, few, engine) for where in ARRANGEMENTS]
                    everything += row
                    yield f"{count:>9}  {truth!s:<15}" + "".join(f"{found!s:<20}" for found in row)
    low = sum(found.covered < 93 for found in everything)
    high = sum(found.covered > 98 for found in everything)
    least = min(found.covered for found in everything)
    yield f"{len(everything)} cells: {low} below 93 %, {high} above 98 %, the least {least:.1f} %"


def main() -> None:
    """Print the table and the time it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2000, help="exams per cell (a quarter of it for 2,000 questions)")
    parser.add_argument("--engine", choices=("intervals", "bootstrap"), default="intervals")
    parser.add_argument("--points", choices=POINTS, nargs="+", default=POINTS)
    parser.add_argument("--least", action="store_true", help="how little could be covered where 98 % is exceeded")
    asked = parser.parse_args()
    begin = time.perf_counter()
    if asked.least:
        print("\n".join(least_table(asked.draws)))
        return
    before = asked.engine == "bootstrap"
    engines = (
        bootstrap_engine(paired=False) if before else score_engine(),
        bootstrap_engine(paired=True) if before else change_engine(),
    )
    for line in table(asked.draws, engines, tuple(asked.points)):
        print(line, flush=True)
    print(f"{time.perf_counter() - begin:.0f} s, {asked.draws} draws a cell, seed 2026")


if __name__ == "__main__":
    main()
