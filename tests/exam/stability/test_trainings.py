"""Several trainings of one row give a mean and intervals over trainings, by hand and by scipy."""

import pytest
from scipy import stats

from medllm.exam.stability.report import stability_report
from medllm.exam.stability.text import report_json, report_lines
from medllm.exam.stability.trainings import contrasts, over_trainings, row_and_seed, trainings
from medllm.exam.statistics import Estimate, Interval
from tests.exam.making import record


def estimate(value, half):
    return Estimate(value, Interval(value - half, value + half))


def replies(model, plain, explained, questions=100):
    """A model that is right on the first questions: so many plainly, so many explained."""
    for prompt, right in (("plain", plain), ("explain", explained)):
        yield from (record(f"q{n}", model=model, prompt=prompt, correct=n < right) for n in range(questions))


@pytest.mark.parametrize(
    ("model", "row", "seed"),
    [
        ("final", "final", None), ("final-seed0", "final", 0), ("final_seed12", "final", 12), ("cpt seed 3", "cpt", 3),
        ("cpt-dpo-seed-1", "cpt-dpo", 1), ("final@seed=2", "final", 2), ("seed7", "seed7", None),
    ],
)  # fmt: skip
def test_the_name_of_a_model_tells_its_row_and_seed(model, row, seed):
    assert row_and_seed(model) == (row, seed)


def test_the_t_interval_is_scipy_s_and_the_whole_one_adds_the_questions_error_as_squares():
    values = [-0.050, -0.061, -0.025]
    found = over_trainings([estimate(value, 0.03) for value in values])
    theirs = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert found.mean == pytest.approx(-0.04533, abs=1e-5)
    assert (found.over_trainings.low, found.over_trainings.high) == pytest.approx((theirs.low, theirs.high))
    assert (theirs.low, theirs.high) == pytest.approx((-0.0912, 0.0005), abs=1e-4), "by hand: 4.303 times 1.848 / 1.732"
    half = ((theirs.high - theirs.low) ** 2 / 4 + 0.03**2) ** 0.5
    assert (found.interval.low, found.interval.high) == pytest.approx((found.mean - half, found.mean + half))


def test_trainings_that_all_came_out_alike_still_have_the_width_of_their_questions():
    found = over_trainings([estimate(0.8, 0.04)] * 3)
    assert (found.over_trainings.low, found.over_trainings.high) == (0.8, 0.8)
    assert (found.interval.low, found.interval.high) == pytest.approx((0.76, 0.84))


def test_one_training_says_nothing_of_another():
    assert over_trainings([estimate(0.8, 0.04)]) is None
    assert trainings(stability_report(replies("final", 80, 70))) == []


def test_rows_are_gathered_by_name_and_compared_seed_by_seed():
    right = {
        "cpt": (70, 50),
        "cpt-seed1": (74, 52),
        "final": (80, 78),
        "final-seed1": (82, 76),
        "final-seed2": (78, 74),
    }
    found = stability_report([one for model, counts in right.items() for one in replies(model, *counts)])
    rows = {one.row: one for one in trainings(found)}
    assert rows["final"].models == ("final", "final-seed1", "final-seed2")
    assert rows["final"].scores["plain"].mean == pytest.approx(0.80)
    assert rows["final"].delta.values == pytest.approx((-0.02, -0.06, -0.04))
    assert rows["cpt"].delta.mean == pytest.approx(-0.21)
    pairs = {(one.first, one.second, one.prompt): one.difference for one in contrasts(found)}
    assert set(pairs) == {("cpt", "final", "plain"), ("cpt", "final", "explain")}
    assert pairs["cpt", "final", "explain"].values == pytest.approx((0.28, 0.24)), "the third has no partner"


def test_the_report_shows_them_in_words_and_as_json():
    found = stability_report([*replies("final", 80, 78), *replies("final-seed1", 82, 76)])
    trainings = report_json(found)["trainings"]
    assert trainings[0]["delta"]["mean"] == pytest.approx(-0.04)
    assert trainings[0]["delta"]["interval"]["low"] < trainings[0]["delta"]["over_trainings"]["low"] < -0.04
    assert any("final, 2 trainings" in line for line in report_lines(found))
    assert not any("trainings (" in line for line in report_lines(stability_report(replies("final", 80, 78))))
