"""Exact tests for paired answers: McNemar's test, and Holm's correction over several of them."""

from collections.abc import Sequence
from fractions import Fraction


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
    for step, place in enumerate(sorted(range(len(values)), key=lambda one: values[one])):
        highest = max(highest, min(1.0, (len(values) - step) * values[place]))
        corrected[place] = highest
    return corrected
