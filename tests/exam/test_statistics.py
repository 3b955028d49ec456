"""Intervals agree with theory and cover as often as they claim; exact tests agree with scipy and statsmodels."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.contingency_tables import mcnemar as their_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from benchmarks.coverage import BEST_CELLS, chances, coverage_of_change, coverage_of_score, least_coverage
from medllm.exam.statistics import (
    ClusteredSample,
    QuestionSample,
    Ratio,
    change_interval,
    codes,
    effective_size,
    holm,
    mcnemar,
    share_interval,
    tango,
    wilson,
)

ZERO = np.zeros


def alone(count, weights=None):
    """Questions of one year that share no vignette."""
    return ClusteredSample(
        np.ones(count) if weights is None else weights, np.arange(count), ZERO(count, dtype=np.int64)
    )


def cases(count, size, years=1):
    """Questions in vignettes of one size, over years."""
    return ClusteredSample(np.ones(count), np.arange(count) // size, np.arange(count) * years // count)


def answers(right, count):
    return np.array([1.0] * right + [0.0] * (count - right))


def changes(lost, gained, count):
    return np.array([-1.0] * lost + [1.0] * gained + [0.0] * (count - lost - gained))


def width(interval):
    return interval.high - interval.low


@pytest.mark.parametrize(("right", "count"), [(0, 10), (10, 10), (50, 100), (730, 1000), (3, 7)])
def test_wilson_is_statsmodels_and_scipy_s(right, count):
    ours = wilson(right / count, count)
    assert (ours.low, ours.high) == pytest.approx(proportion_confint(right, count, method="wilson"), abs=1e-9)
    theirs = binomtest(right, count).proportion_ci(method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


@pytest.mark.parametrize("right", [91, 95, 98, 99])
def test_the_end_of_a_good_score_is_the_binomial_mid_p_limit(right):
    found = share_interval(answers(right, 100), alone(100))
    below = binom.cdf(right - 1, 100, found.high) + binom.pmf(right, 100, found.high) / 2
    assert below == pytest.approx(0.025, abs=1e-6) or found.high == pytest.approx(wilson(right / 100, 100).high)
    assert found.high >= wilson(right / 100, 100).high
    assert found.low == pytest.approx(wilson(right / 100, 100).low)
    mirrored = share_interval(1 - answers(right, 100), alone(100))
    assert (mirrored.low, mirrored.high) == pytest.approx((1 - found.high, 1 - found.low))


@pytest.mark.parametrize(("lost", "gained", "count"), [(2, 12, 50), (0, 3, 20), (8, 1, 9), (40, 35, 400)])
def test_the_ends_of_a_change_are_where_the_score_test_says_p_is_five_percent(lost, gained, count):
    # The test itself, by search: the likeliest shares of lost and gained whose difference is the end.
    found = tango(lost / count, gained / count, count)
    for end in (found.low, found.high):
        shares = np.linspace(max(0, -end), (1 - end) / 2, 200_001)[1:-1]
        kept = 1 - 2 * shares - end
        fine = (shares + end > 0) & (kept > 0)
        shares, kept = shares[fine], kept[fine]
        likely = lost * np.log(shares) + gained * np.log(shares + end) + (count - lost - gained) * np.log(kept)
        likeliest = shares[np.argmax(likely)]
        error = np.sqrt((2 * likeliest + end - end**2) / count)
        assert abs((gained - lost) / count - end) / error == pytest.approx(1.96, abs=0.01)


def test_a_change_without_any_changed_question_has_a_width_that_shrinks_with_the_number_of_questions():
    widths = [width(change_interval(ZERO(count), alone(count))) for count in (1, 10, 12, 100, 2000)]
    assert widths == sorted(widths, reverse=True)
    assert widths[2] == pytest.approx(2 * 1.96**2 / (12 + 1.96**2), abs=1e-4), "z² / (n + z²) to either side"
    assert min(widths) > 0.003


@pytest.mark.parametrize("values", [answers(7, 10), answers(10, 10), answers(0, 10), changes(3, 1, 10), ZERO(10)])
def test_no_interval_is_without_width_and_each_holds_its_value(values):
    for sample in (alone(10), cases(10, 3), alone(10, np.array([3.0, 1.0] * 5))):
        mean = float(np.average(values, weights=sample.weights))
        for found in (change_interval(values, sample), share_interval(np.abs(values), sample)):
            assert width(found) > 0.1
        assert change_interval(values, sample).low <= mean <= change_interval(values, sample).high


def test_a_change_turned_round_has_the_interval_turned_round():
    one, other = (change_interval(sign * changes(9, 2, 40), cases(40, 2)) for sign in (1, -1))
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))


def test_many_questions_have_the_interval_of_a_mean():
    chance = np.random.default_rng(1)
    right = (chance.random(4_000) < 0.7).astype(float)
    assert width(share_interval(right, alone(4_000))) == pytest.approx(2 * 1.96 * right.std() / 4_000**0.5, rel=0.02)


def test_vignettes_widen_the_interval_as_clustered_standard_errors_do():
    chance = np.random.default_rng(4)
    values = np.repeat(chance.random(150) < 0.7, 3).astype(float)
    groups = np.repeat(np.arange(150), 3)
    clustered = OLS(values, np.ones(450)).fit(cov_type="cluster", cov_kwds={"groups": groups}).bse[0]
    sample = ClusteredSample(np.ones(450), groups, ZERO(450, dtype=np.int64))
    assert width(share_interval(values, sample)) == pytest.approx(2 * 1.96 * clustered, rel=0.07)
    assert effective_size(values, sample) == pytest.approx(150, rel=0.12), "three answers that are one answer"


def test_points_weigh_the_paired_difference_as_a_weighted_mean_does():
    chance = np.random.default_rng(6)
    weights = chance.choice([1.0, 3.0], 600)
    plain, explained = (chance.random((2, 600)) < [[0.85], [0.75]]).astype(float)
    sample = QuestionSample([str(number) for number in range(600)], [0] * 600)
    delta = sample.score(Ratio(explained * weights, weights), minus=Ratio(plain * weights, weights))
    difference = explained - plain
    mean = float(np.average(difference, weights=weights))
    error = float(np.sqrt((weights**2 * (difference - mean) ** 2).sum()) / weights.sum())
    assert delta.value == pytest.approx(mean)
    assert width(delta.interval) == pytest.approx(2 * 1.96 * error, rel=0.06)


def test_heavy_questions_that_are_the_hard_ones_widen_the_interval():
    weights = np.array([3.0] * 200 + [1.0] * 200)
    hard, easy = answers(100, 200), answers(198, 200)
    heavy = share_interval(np.concatenate([hard, easy]), alone(400, weights))
    light = share_interval(np.concatenate([easy, hard]), alone(400, weights))
    exact = (9 * 200 * 0.25 + 200 * 0.0099) ** 0.5 / 800
    assert width(heavy) == pytest.approx(2 * 1.96 * exact, rel=0.07)
    assert width(light) < 0.6 * width(heavy)


def test_years_that_differ_do_not_count_as_chance():
    values = np.concatenate([answers(95, 100), answers(35, 100)])
    by_year = ClusteredSample(np.ones(200), np.arange(200), np.repeat([0, 1], 100))
    exact = ((0.95 * 0.05 + 0.35 * 0.65) / 2 / 200) ** 0.5
    assert width(share_interval(values, by_year)) == pytest.approx(2 * 1.96 * exact, rel=0.06)
    assert width(share_interval(values, alone(200))) > 1.15 * width(share_interval(values, by_year))


def test_a_year_that_is_all_right_has_the_interval_of_its_own_questions():
    sample = QuestionSample(list(range(60)), [2018] * 10 + [2019] * 50)
    right = Ratio(np.concatenate([np.ones(10), answers(30, 50)]), np.ones(60))
    first = np.array([1.0] * 10 + [0.0] * 50)
    found = sample.part(right, first).interval
    assert (found.low, found.high) == pytest.approx((wilson(1.0, 10).low, 1.0))
    assert sample.part(right, 1 - first).interval.low == pytest.approx(wilson(0.6, 50).low)


def test_a_score_of_all_right_answers_has_wilson_s_interval():
    sample = QuestionSample(list("abcdefghij"), [0] * 10)
    all_right = Ratio(np.ones(10), np.ones(10))
    found = sample.share(all_right).interval
    assert (found.low, found.high) == pytest.approx((wilson(1.0, 10).low, 1.0))
    nothing = Ratio(ZERO(10), ZERO(10))
    assert sample.share(nothing).interval is None
    assert sample.score(nothing).value is None


def test_a_year_without_points_does_not_spoil_the_mean_of_years():
    sample = QuestionSample(list("abcd"), [1, 1, 2, 2])
    half = Ratio(np.array([1.0, 0, 0, 0]), np.array([1.0, 1.0, 0, 0]))
    assert sample.score(half).value == 0.5


def test_a_paired_difference_of_different_questions_is_refused():
    sample = QuestionSample(list("ab"), [1, 1])
    one, other = Ratio(np.ones(2), np.ones(2)), Ratio(np.array([1.0, 0]), np.array([1.0, 0]))
    with pytest.raises(ValueError, match="same questions"):
        sample.score(one, minus=other)


def test_nothing_depends_on_the_order_of_the_questions():
    chance = np.random.default_rng(3)
    values, weights, groups = (chance.random(90) < 0.8).astype(float), chance.choice([1.0, 3.0], 90), np.arange(90) // 3
    order = chance.permutation(90)
    one = share_interval(values, ClusteredSample(weights, groups, ZERO(90, dtype=np.int64)))
    other = share_interval(
        values[order], ClusteredSample(weights[order], codes(groups[order].tolist()), ZERO(90, dtype=np.int64))
    )
    assert (one.low, one.high) == pytest.approx((other.low, other.high))


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    found = [coverage_of_score(count, chance, "alone", 0.0, "equal", 400) for count, chance in ((400, 0.8), (50, 0.9))]
    assert all(92 <= one.covered <= 99 for one in found)


@pytest.mark.parametrize("cell", BEST_CELLS, ids=str)
def test_intervals_cover_where_resampling_did_not(cell):
    kind, *rest = cell
    found = (coverage_of_score if kind == "score" else coverage_of_change)(*rest, 400)
    assert found.covered >= 92


def test_ten_questions_at_a_score_of_98_percent_cannot_be_covered_between_93_and_98_percent():
    assert least_coverage(chances(10, 0.98)) == pytest.approx(0.98**10 + 10 * 0.98**9 * 0.02)


def test_outcomes_as_likely_as_each_other_are_covered_together():
    likely = chances(20, (0.002, 0.002))
    assert likely.max() == pytest.approx(0.996**20)
    assert least_coverage(likely) == pytest.approx(0.996**20 + 2 * 20 * 0.002 * 0.996**19)
    assert least_coverage(np.full(4, 0.25)) == 1.0


def test_the_chances_of_all_outcomes_are_together_one():
    for count, truth in ((10, 0.5), (2000, 0.995), (50, (0.3, 0.3)), (400, (0.01, 0.0))):
        assert chances(count, truth).sum() == pytest.approx(1, abs=1e-9)


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
