"""Resampled exams keep years and vignettes, agree with theory and with a plain loop, and repeat by seed."""

import numpy as np
import pytest
from scipy.stats import bootstrap as scipy_bootstrap
from statsmodels.regression.linear_model import OLS

from medllm.exam.bootstrap import interval, mean_of_strata, pooled, resample_sums
from medllm.exam.estimates import Ratios, wilson


def exam(questions=400, seed=1):
    chance = np.random.default_rng(seed)
    right = (chance.random(questions) < 0.8).astype(float)
    return right, [str(number) for number in range(questions)], [0] * questions


def test_the_same_seed_gives_the_same_exams_and_another_seed_others():
    right, clusters, strata = exam()
    columns = right[:, None]
    one, same = (resample_sums(columns, clusters, strata, resamples=500, seed=7)[0] for _ in range(2))
    other = resample_sums(columns, clusters, strata, resamples=500, seed=8)[0]
    assert (one == same).all()
    assert (one != other).any()


def test_every_resampled_exam_has_each_year_s_number_of_cases():
    columns = np.ones((7, 1))
    sums = resample_sums(columns, list("abcdefg"), [1, 1, 1, 2, 2, 2, 2], resamples=300)
    assert (sums[0] == 3).all()
    assert (sums[1] == 4).all()


def test_questions_of_a_vignette_are_drawn_together():
    columns = np.array([[1.0, 0], [0, 1.0], [0, 0], [0, 0]])
    (sums,) = resample_sums(columns, ["case", "case", "c", "d"], [0] * 4, resamples=300)
    assert (sums[:, 0] == sums[:, 1]).all()
    assert len(set(sums[:, 0])) > 2


def test_a_plain_loop_over_drawn_exams_has_the_same_spread():
    right, clusters, strata = exam()
    (sums,) = resample_sums(np.stack([right, np.ones(400)], axis=1), clusters, strata, resamples=20_000)
    ours = pooled([sums], 0, 1)
    chance = np.random.default_rng(99)
    loop = np.array([right[chance.integers(0, 400, 400)].mean() for _ in range(5_000)])
    assert ours.mean() == pytest.approx(loop.mean(), abs=0.002)
    assert ours.std() == pytest.approx(loop.std(), rel=0.05)
    assert ours.std() == pytest.approx(right.std() / 20, rel=0.03), "the standard error of a mean"


def test_the_interval_is_scipy_s_percentile_bootstrap():
    right, clusters, strata = exam()
    (sums,) = resample_sums(np.stack([right, np.ones(400)], axis=1), clusters, strata, resamples=20_000)
    ours = interval(pooled([sums], 0, 1))
    theirs = scipy_bootstrap((right,), np.mean, n_resamples=20_000, method="percentile", rng=5).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.004)


def test_vignettes_widen_the_interval_as_clustered_standard_errors_do():
    chance = np.random.default_rng(4)
    cases = np.repeat(chance.random(150) < 0.7, 3).astype(float)
    groups = np.repeat(np.arange(150), 3)
    columns = np.stack([cases, np.ones(450)], axis=1)
    (sums,) = resample_sums(columns, [str(group) for group in groups], [0] * 450, resamples=20_000)
    clustered = OLS(cases, np.ones(450)).fit(cov_type="cluster", cov_kwds={"groups": groups}).bse[0]
    assert pooled([sums], 0, 1).std() == pytest.approx(clustered, rel=0.05)
    assert clustered > 1.5 * OLS(cases, np.ones(450)).fit().bse[0]


def test_points_weigh_the_paired_difference_as_a_weighted_mean_does():
    chance = np.random.default_rng(6)
    weights = chance.choice([1.0, 3.0], 600)
    plain, explained = (chance.random((2, 600)) < [[0.85], [0.75]]).astype(float)
    ratios = Ratios([str(number) for number in range(600)], [0] * 600)
    one, other = ratios.add(plain * weights, weights), ratios.add(explained * weights, weights)
    ratios.resample(resamples=20_000, seed=0)
    delta = ratios.score(other, minus=one)
    difference = explained - plain
    mean = float(np.average(difference, weights=weights))
    error = float(np.sqrt((weights**2 * (difference - mean) ** 2).sum()) / weights.sum())
    assert delta.value == pytest.approx(mean)
    assert delta.interval.high - delta.interval.low == pytest.approx(2 * 1.96 * error, rel=0.06)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    covered = 0
    for seed in range(200):
        right, clusters, strata = exam(seed=seed)
        (sums,) = resample_sums(np.stack([right, np.ones(400)], axis=1), clusters, strata, resamples=1_000, seed=seed)
        found = interval(pooled([sums], 0, 1))
        covered += found.low <= 0.8 <= found.high
    assert 180 <= covered <= 199


def test_a_year_without_points_does_not_spoil_the_mean_of_years():
    sums = [np.array([[1.0, 2.0]]), np.array([[0.0, 0.0]])]
    assert mean_of_strata(sums, 0, 1).tolist() == [0.5]


def test_a_score_of_all_right_answers_has_wilson_s_interval():
    ratios = Ratios(list("abcdefghij"), [0] * 10)
    all_right = ratios.add(np.ones(10), np.ones(10))
    ratios.resample(resamples=200, seed=0)
    assert ratios.share(all_right).interval == wilson(np.ones(10), np.ones(10))
    assert wilson(np.zeros(0), np.zeros(0)) is None


def test_a_draw_without_any_points_is_not_a_number_and_makes_no_noise():
    assert np.isnan(mean_of_strata([np.zeros((3, 2)), np.zeros((3, 2))], 0, 1)).all()
    assert interval(np.full(5, np.nan)) is None
