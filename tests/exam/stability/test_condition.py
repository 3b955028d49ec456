"""What one prompt's replies tell without a pair: statuses, language, samples and calibration."""

import pytest

from medllm.exam.stability.report import stability_report
from tests.exam.making import record


def condition(records):
    (stability,) = stability_report(records).models
    return stability.conditions["plain"]


def test_statuses_and_flags_are_counted():
    records = [
        record("1"),
        record("2", correct=False, answer=None, status="truncated", truncated=True),
        record("3", run_on=True),
        record("4", correct=False, answer=None, status="loop", loop=True, truncated=True),
        record("5", correct=False, prohibited="e"),
    ]
    found = condition(records)
    assert {name: count for name, count in found.statuses.items() if count} == {
        "answered": 3,
        "truncated": 1,
        "loop": 1,
    }
    assert (found.truncated, found.run_on, found.loop, found.prohibited) == (2, 1, 1, 1)


def test_language_is_counted_only_of_replies_with_enough_letters():
    records = [
        record("1", completion="この症例では肺塞栓を疑うべきであるから、造影CTを行う。答え:b"),
        record("2", completion="Okay, the most likely diagnosis here is pulmonary embolism. 答え:b"),
        record("3", completion="b"),
    ]
    found = condition(records)
    assert (found.japanese, found.worded) == (1, 2)


def test_samples_of_a_question_agree_or_do_not():
    answers = {"q1": "aaaa", "q2": "aabb", "q3": "bbba"}
    records = [
        record(name, sample=number, answer=answer, correct=answer == "a")
        for name, given in answers.items()
        for number, answer in enumerate(given)
    ]
    same = condition(records).consistency
    assert (same.questions, same.samples) == (3, 4)
    assert same.agreement == pytest.approx((1 + 0.5 + 0.75) / 3)
    assert same.unanimous == pytest.approx(1 / 3)
    assert same.entropy == pytest.approx((0 + 1 + 0.8112781) / 3)
    assert same.majority_accuracy == pytest.approx(2 / 3)
    sure = condition(records).calibration
    assert sure.source == "samples"
    assert sure.brier == pytest.approx((0 + 0.25 + 0.5625) / 3)
    assert sure.ece == pytest.approx((0 + 0.5 + 0.75) / 3)


def test_calibration_comes_from_probabilities_where_they_are():
    records = [
        record("1", probability=0.95),
        record("2", probability=0.93, correct=False),
        record("3", probability=0.55),
    ]
    sure = condition(records).calibration
    assert (sure.source, sure.questions) == ("probability", 3)
    assert sure.brier == pytest.approx((0.05**2 + 0.93**2 + 0.45**2) / 3)
    assert sure.ece == pytest.approx((2 * abs(0.94 - 0.5) + abs(0.55 - 1)) / 3)


def test_one_sample_each_says_nothing_of_consistency_or_calibration():
    found = condition([record("1"), record("2")])
    assert found.consistency is None
    assert found.calibration is None
