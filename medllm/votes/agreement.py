"""How far raters agree: on pairs that two or more have judged, the share of equal choices and Fleiss' kappa."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from medllm.votes.vote import CHOICES, Vote


@dataclass(frozen=True)
class Agreement:
    """Agreement figures, with the numbers of votes, raters and pairs behind them."""

    votes: int
    raters: int
    pairs: int
    """Judgements by two different raters of the same two texts."""
    equal: float
    """The share of those with the same choice; nan when there are none."""
    kappa: float
    """The same beyond chance; nan when there are none, or when chance alone explains everything."""
    low: float
    high: float
    """The 95 % interval of kappa (large-sample)."""


def agreement(votes: Sequence[Vote]) -> Agreement:
    """Agreement over all pairs of raters who saw the same two explanations, on either side."""
    seen: dict[tuple[str, ...], list[tuple[str, str]]] = defaultdict(list)
    for vote in votes:
        key = (vote.benchmark, vote.question_id, *sorted((vote.completion_a, vote.completion_b)))
        seen[key].append((vote.rater, _faced(vote)))
    couples = [
        (first[1], second[1])
        for judged in seen.values()
        for first, second in combinations(judged, 2)
        if first[0] != second[0]
    ]
    equal, kappa, half = kappa_of(couples)
    raters = len({vote.rater for vote in votes})
    return Agreement(len(votes), raters, len(couples), equal, kappa, kappa - half, kappa + half)


def kappa_of(couples: Sequence[tuple[str, str]]) -> tuple[float, float, float]:
    """Share of equal choices, kappa, and half its 95 % interval; raters are interchangeable, so margins are pooled.

    >>> couples = [("a", "a")] * 20 + [("a", "b")] * 5 + [("b", "a")] * 10 + [("b", "b")] * 15
    >>> [round(value, 3) for value in kappa_of(couples)]
    [0.7, 0.394, 0.257]
    """
    size = len(couples)
    if not size:
        return math.nan, math.nan, math.nan
    equal = sum(first == second for first, second in couples) / size
    margin = Counter(choice for couple in couples for choice in couple)
    chance = sum((count / (2 * size)) ** 2 for count in margin.values())
    if chance == 1:
        return equal, math.nan, math.nan
    kappa = (equal - chance) / (1 - chance)
    half = 1.96 * math.sqrt(equal * (1 - equal) / size) / (1 - chance)
    return equal, kappa, half


def _faced(vote: Vote) -> str:
    """Express the choice by text instead of by side, since sides are drawn separately for each rater."""
    if vote.choice not in CHOICES[:2]:
        return vote.choice
    first_is_a = vote.completion_a <= vote.completion_b
    return "first" if (vote.choice == "a") == first_is_a else "second"
