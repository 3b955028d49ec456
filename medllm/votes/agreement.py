"""Agreement of raters on the same explanations: kappas of Cohen and Fleiss, Krippendorff's alpha, with intervals."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from medllm.exam.statistics import Codes, Floats
from medllm.votes.vote import CHOICES, Vote, pair_of

DRAWS = 500
"""Resamples of a bootstrap; the seed is fixed, so the same votes give the same figures."""

FEWEST_SHARED = 10
"""Shared pairs below which an interval is not computed: the bootstrap of fewer is far too narrow."""

JUDGED = ("first", "second", *CHOICES[2:])
"""What a rater may answer about two texts in an order that is the same for all raters."""


@dataclass(frozen=True)
class Coefficient:
    """A coefficient of agreement: 1 for full agreement, 0 for what chance gives; nan where it does not exist."""

    value: float
    low: float
    high: float
    """The 95 % bootstrap interval over shared pairs; nan below ten of them."""


@dataclass(frozen=True)
class Shared:
    """How far raters agree on the pairs of texts that two or more of them judged."""

    votes: int
    raters: int
    shared: int
    """Pairs of texts that at least two raters judged."""
    pairs: int
    """Judgements by two different raters of the same two texts."""
    equal: float
    """The share of those with the same choice; nan when there are none."""
    fleiss: Coefficient
    """Fleiss' kappa; with unequal numbers of raters, the means over pairs."""


@dataclass(frozen=True)
class Agreement(Shared):
    """Agreement figures, with the numbers of votes, raters and pairs behind them."""

    cohen: Coefficient
    """Cohen's kappa: of two raters, or the mean over every two raters with shared pairs (Light's kappa)."""
    krippendorff: Coefficient
    """Krippendorff's alpha for unordered answers."""


def agreement(votes: Sequence[Vote]) -> Agreement:
    """Compute agreement over all raters who judged the same two explanations, on either side; skips are left out."""
    seen: dict[tuple[object, ...], dict[str, str]] = defaultdict(dict)
    for vote in votes:
        if vote.choice != "skip":
            seen[pair_of(vote)][vote.rater] = _faced(vote)
    shared = [judged for judged in seen.values() if len(judged) > 1]
    couples = [two for judged in shared for two in combinations(judged.values(), 2)]
    table = np.array([[list(judged.values()).count(reason) for reason in JUDGED] for judged in shared], dtype=float)
    table = table.reshape(len(shared), len(JUDGED))
    answers = _answers(shared)
    chance = np.random.default_rng(0)
    draws = [chance.integers(len(shared), size=len(shared)) for _ in range(DRAWS if len(shared) else 0)]

    def coefficient(values: list[float], value: float) -> Coefficient:
        kept = np.array([entry for entry in values if not math.isnan(entry)])
        enough = len(shared) >= FEWEST_SHARED
        low, high = percentiles(kept.reshape(-1, 1)) if enough else percentiles(np.empty((0, 1)))
        return Coefficient(value, float(low[0]), float(high[0]))

    return Agreement(
        votes=len(votes),
        raters=len({vote.rater for vote in votes}),
        shared=len(shared),
        pairs=len(couples),
        equal=sum(first == second for first, second in couples) / len(couples) if couples else math.nan,
        cohen=coefficient([light(answers[:, at]) for at in draws], light(answers)),
        fleiss=coefficient([fleiss(table[at]) for at in draws], fleiss(table)),
        krippendorff=coefficient([krippendorff(table[at]) for at in draws], krippendorff(table)),
    )


class AgreementTally:
    """The agreement of votes as they come: each is counted once, however often the figures are asked for.

    The counts and kappa are always those of all votes. From `steady` votes on, the bootstrap interval of kappa is
    drawn again only when their number has grown by a twentieth: a study takes time in proportion to its votes.
    """

    def __init__(self, steady: int = 500) -> None:
        self._steady = steady
        self.read = 0
        """Votes that were given to `add`, skips and corrected ones among them."""
        self._last: dict[tuple[object, ...], Vote] = {}
        self._judged: dict[tuple[object, ...], dict[str, str]] = defaultdict(dict)
        self._votes: Counter[str] = Counter()
        self._couples = self._equal = 0
        self._rows: dict[tuple[object, ...], tuple[int, ...]] = {}
        self._agreeing = 0.0
        self._shares = np.zeros(len(JUDGED))
        self._drawn: tuple[int, float, float] = (0, math.nan, math.nan)

    def add(self, vote: Vote) -> None:
        """Count a vote, in the place of the same rater's earlier one on the same two texts."""
        self.read += 1
        pair = pair_of(vote)
        before = self._last.get((vote.rater, *pair))
        if before is not None and before.time > vote.time:
            return
        self._last[vote.rater, *pair] = vote
        judged = self._judged[pair]
        self._count(pair, judged, -1)
        if judged.pop(vote.rater, None) is not None:
            self._votes[vote.rater] -= 1
        if vote.choice != "skip":
            judged[vote.rater] = _faced(vote)
            self._votes[vote.rater] += 1
        self._count(pair, judged, 1)

    def figures(self) -> Shared:
        """Return the figures of the votes so far."""
        shared = len(self._rows)
        value = math.nan
        if shared:
            share = self._shares / shared
            value = _beyond_chance(self._agreeing / shared, float(share @ share))
        raters = sum(count > 0 for count in self._votes.values())
        equal = self._equal / self._couples if self._couples else math.nan
        kappa = Coefficient(value, *self._interval(shared))
        return Shared(sum(self._votes.values()), raters, shared, self._couples, equal, kappa)

    def _count(self, pair: tuple[object, ...], judged: Mapping[str, str], sign: int) -> None:
        """Add a pair's judgements to the sums, or (`sign` -1) take them out; one rater's alone count nowhere."""
        raters = len(judged)
        if raters < 2:
            return
        counts = Counter(judged.values())
        row = tuple(counts[reason] for reason in JUDGED)
        equal = sum(math.comb(count, 2) for count in row)
        self._couples += sign * math.comb(raters, 2)
        self._equal += sign * equal
        self._agreeing += sign * equal / math.comb(raters, 2)
        self._shares += sign * np.asarray(row) / raters
        if sign > 0:
            self._rows[pair] = row
        else:
            del self._rows[pair]

    def _interval(self, shared: int) -> tuple[float, float]:
        drawn, low, high = self._drawn
        if shared < FEWEST_SHARED:
            return math.nan, math.nan
        if self.read > drawn and not self._steady <= self.read < drawn * 1.05:
            table, chance = np.array(list(self._rows.values()), dtype=float), np.random.default_rng(0)
            values = [fleiss(table[chance.integers(shared, size=shared)]) for _ in range(DRAWS)]
            kept = np.array([value for value in values if not math.isnan(value)]).reshape(-1, 1)
            (low,), (high,) = (ends.tolist() for ends in percentiles(kept))
            self._drawn = (self.read, low, high)
        return low, high


def percentiles(drawn: Floats) -> tuple[Floats, Floats]:
    """Return the 2.5 % and 97.5 % points of each column; nan where there is no row."""
    if not len(drawn):
        return np.full(drawn.shape[1], math.nan), np.full(drawn.shape[1], math.nan)
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    return low, high


def _answers(shared: Sequence[dict[str, str]]) -> Codes:
    """Return raters x shared pairs: the number of the answer, or -1 where the rater did not judge."""
    raters = sorted({rater for judged in shared for rater in judged})
    rows = [[JUDGED.index(judged[rater]) if rater in judged else -1 for judged in shared] for rater in raters]
    return np.array(rows, dtype=np.int64).reshape(len(raters), len(shared))


def light(answers: Codes) -> float:
    """Return the mean of Cohen's kappa over every two raters; raters x pairs, -1 for no answer.

    >>> first, second = [0] * 25 + [1] * 25, [0] * 20 + [1] * 5 + [0] * 10 + [1] * 15
    >>> round(light(np.array([first, second])), 3)
    0.4
    """
    kappas = [_cohen(first, second) for first, second in combinations(answers, 2)]
    kept = [value for value in kappas if not math.isnan(value)]
    return sum(kept) / len(kept) if kept else math.nan


def _cohen(first: Codes, second: Codes) -> float:
    both = (first >= 0) & (second >= 0)
    size = int(both.sum())
    if not size:
        return math.nan
    own = np.bincount(first[both], minlength=len(JUDGED)) / size
    two = np.bincount(second[both], minlength=len(JUDGED)) / size
    return _beyond_chance(float((first[both] == second[both]).mean()), float(own @ two))


def fleiss(table: Floats) -> float:
    """Return Fleiss' kappa of a table of pairs x answers, each row with two raters or more.

    >>> round(fleiss(np.array([[2, 0], [0, 2], [1, 1], [2, 0]])), 4)
    0.4667
    """
    if not len(table):
        return math.nan
    raters = table.sum(axis=1)
    equal = (table * (table - 1)).sum(axis=1) / (raters * (raters - 1))
    share = (table / raters[:, None]).mean(axis=0)
    return _beyond_chance(float(equal.mean()), float(share @ share))


def krippendorff(table: Floats) -> float:
    """Return Krippendorff's alpha (nominal) of a table of pairs x answers, each row with two raters or more.

    >>> round(krippendorff(np.array([[2, 0], [0, 2], [1, 1], [2, 0]])), 4)
    0.5333
    """
    if not len(table):
        return math.nan
    raters, total = table.sum(axis=1), table.sum()
    equal = ((table * (table - 1)).sum(axis=1) / (raters - 1)).sum() / total
    of_answer = table.sum(axis=0)
    chance = (of_answer * (of_answer - 1)).sum() / (total * (total - 1))
    return _beyond_chance(float(equal), float(chance))


def _beyond_chance(equal: float, chance: float) -> float:
    """Return the agreement beyond chance; nan when chance alone explains everything."""
    return math.nan if chance >= 1 - 1e-12 else (equal - chance) / (1 - chance)


def _faced(vote: Vote) -> str:
    """Express the choice by text instead of by side, since sides are drawn separately for each rater."""
    if vote.choice not in CHOICES[:2]:
        return vote.choice
    first_is_a = (vote.model_a, vote.completion_a) <= (vote.model_b, vote.completion_b)
    return "first" if (vote.choice == "a") == first_is_a else "second"
