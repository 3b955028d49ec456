"""The exact tests agree with hand-computed cases and with scipy and statsmodels."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from statsmodels.stats.contingency_tables import mcnemar as their_mcnemar
from statsmodels.stats.multitest import multipletests

from medllm.exam.significance import holm, mcnemar


@pytest.mark.parametrize(
    ("lost", "gained", "p"),
    [(0, 0, 1.0), (1, 0, 1.0), (5, 5, 1.0), (6, 0, 2 / 64), (8, 1, 2 * (1 + 9) / 512), (31, 69, 1.8e-4)],
)
def test_mcnemar_of_cases_computed_by_hand(lost, gained, p):
    assert mcnemar(lost, gained) == pytest.approx(p, rel=0.03)
    assert mcnemar(gained, lost) == mcnemar(lost, gained)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_scipy_s_and_statsmodels(lost, gained):
    if lost + gained:
        assert mcnemar(lost, gained) == pytest.approx(binomtest(lost, lost + gained).pvalue, rel=1e-9)
    theirs = their_mcnemar([[10, lost], [gained, 10]], exact=True).pvalue
    if lost + gained:
        assert mcnemar(lost, gained) == pytest.approx(theirs, rel=1e-9)


def test_mcnemar_of_thousands_of_questions_does_not_overflow():
    assert 0 < mcnemar(1400, 1600) < 0.001


@pytest.mark.parametrize("seed", range(10))
def test_holm_is_statsmodels(seed):
    chance = random.Random(seed)
    values = [round(chance.random() ** 3, 3) for _ in range(chance.randrange(1, 12))]
    assert holm(values) == pytest.approx(list(multipletests(values, method="holm")[1]))


def test_holm_of_nothing_is_nothing():
    assert holm([]) == []
