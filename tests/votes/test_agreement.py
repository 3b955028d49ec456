"""How far raters agree: by hand, against statsmodels, and against Krippendorff's own worked example."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest
from statsmodels.stats.inter_rater import cohens_kappa, fleiss_kappa

from medllm.votes.agreement import FEWEST_SHARED, AgreementTally, agreement, fleiss, krippendorff, light
from medllm.votes.vote import counted, digest
from tests.votes.making import vote


def of_rater(number: int, rater: str, choice: str, *, swapped: bool = False):
    """A rater's vote on pair `number`, its sides swapped or not."""
    sides = {"model_a": "final", "model_b": "base", "completion_a": digest(f"b {number}"),
             "completion_b": digest(f"a {number}")} if swapped else {}  # fmt: skip
    return vote(number, rater=rater, choice=choice, vote_id=digest(f"{number} {rater}")[:32], **sides)


def test_two_raters_agree_on_a_text_although_it_stood_on_different_sides():
    found = agreement([of_rater(1, "r1", "a"), of_rater(1, "r2", "b", swapped=True)])
    assert (found.votes, found.raters, found.shared, found.pairs, found.equal) == (2, 2, 1, 1, 1.0)


def test_a_rater_does_not_agree_with_themselves_and_a_skip_is_no_answer():
    assert agreement([of_rater(1, "r1", "a"), of_rater(1, "r1", "b")]).pairs == 0
    assert agreement([of_rater(1, "r1", "a"), of_rater(1, "r2", "skip")]).pairs == 0


def test_the_coefficients_of_four_pairs_are_those_computed_by_hand():
    """Three ties of four are common, one pair is tie against bad: 3/4 agree.

    Cohen: chance = 1 x 3/4 = 3/4, so 0. Fleiss: chance = (7/8)^2 + (1/8)^2 = 25/32, so -1/7. Krippendorff: chance =
    (7 x 6) / (8 x 7) = 3/4, so 0.
    """
    votes = [of_rater(at, rater, "tie") for at in range(3) for rater in ("r1", "r2")]
    votes += [of_rater(3, "r1", "tie"), of_rater(3, "r2", "bad")]
    found = agreement(votes)
    assert (found.shared, found.equal) == (4, 0.75)
    assert found.cohen.value == pytest.approx(0)
    assert found.fleiss.value == pytest.approx(-1 / 7)
    assert found.krippendorff.value == pytest.approx(0)


def test_kappa_is_zero_by_chance_and_one_for_equal_answers():
    by_chance = np.array([[2, 0], [1, 1], [1, 1], [0, 2]] * 10)
    assert fleiss(by_chance) == pytest.approx(0)
    assert fleiss(np.array([[2, 0], [0, 2]] * 10)) == krippendorff(np.array([[3, 0], [0, 2]] * 5)) == pytest.approx(1)
    assert math.isnan(fleiss(np.array([[2, 0]] * 4))), "one answer only: nothing is beyond chance"


def test_krippendorffs_alpha_is_that_of_his_worked_example_with_missing_answers():
    """Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", section C: four observers, 12 units, 0.743."""
    x = None
    observed = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, x, x, x],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, x, 3],
        [x, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, x],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, x],
    ]
    table = [[[row[unit] for row in observed].count(value) for value in range(1, 6)] for unit in range(12)]
    shared = np.array([row for row in table if sum(row) > 1])
    assert krippendorff(shared) == pytest.approx(0.743, abs=0.0005)


def test_the_kappas_are_those_of_statsmodels():
    chance = random.Random(1)
    answers = np.array([[chance.choice([0, 0, 1, 2, 3]) if chance.random() < 0.4 else at % 3 for at in range(40)]
                        for _ in range(3)])  # fmt: skip
    table = np.array([[list(answers[:, at]).count(value) for value in range(4)] for at in range(40)])
    assert fleiss(table) == pytest.approx(fleiss_kappa(table))
    crossed = [np.zeros((4, 4)) for _ in range(3)]
    for square, (first, second) in zip(crossed, [(0, 1), (0, 2), (1, 2)], strict=True):
        np.add.at(square, (answers[first], answers[second]), 1)
    assert light(answers) == pytest.approx(np.mean([cohens_kappa(square).kappa for square in crossed]))


@pytest.mark.parametrize("size", [FEWEST_SHARED - 1, 60])
def test_an_interval_comes_from_ten_shared_pairs_on_and_holds_the_value(size):
    chance = random.Random(2)
    votes = [
        of_rater(at, f"r{rater}", "ab"[at % 2] if chance.random() < 0.7 else chance.choice(["tie", "bad"]))
        for at in range(size)
        for rater in range(3)
    ]
    for found in (agreement(votes).cohen, agreement(votes).fleiss, agreement(votes).krippendorff):
        if size < FEWEST_SHARED:
            assert math.isnan(found.low) and math.isnan(found.high)
        else:
            assert found.low < found.value < found.high


def test_votes_counted_as_they_come_give_the_figures_of_all_of_them():
    """Corrections, skips, swapped sides and raters of unequal diligence; compared after every tenth vote."""
    chance, tally, votes = random.Random(0), AgreementTally(), []
    for number in range(1, 151):
        choice = chance.choice(("a", "a", "b", "tie", "bad", "skip"))
        each = of_rater(chance.randrange(25), chance.choice(("r1", "r2", "r3")), choice, swapped=chance.random() < 0.5)
        votes.append(replace(each, time=f"2026-01-01T00:{number // 60:02}:{number % 60:02}+00:00"))
        tally.add(votes[-1])
        if number % 10:
            continue
        whole, so_far = agreement([each for each in counted(votes) if each.choice != "skip"]), tally.figures()
        for name in ("votes", "raters", "shared", "pairs"):
            assert getattr(so_far, name) == getattr(whole, name), name
        assert so_far.equal == pytest.approx(whole.equal, nan_ok=True)
        assert so_far.fleiss.value == pytest.approx(whole.fleiss.value, nan_ok=True)
        assert (so_far.fleiss.low, so_far.fleiss.high) == pytest.approx(
            (whole.fleiss.low, whole.fleiss.high), abs=0.08, nan_ok=True
        )


def test_the_interval_of_many_votes_is_drawn_again_when_a_twentieth_more_have_come():
    tally, drawn = AgreementTally(steady=40), []
    for number in range(80):
        tally.add(of_rater(number // 2, f"r{number % 2}", "a" if number % 3 else "b"))
        drawn.append((tally.figures().fleiss.low, tally.figures().fleiss.high))
    assert len(set(drawn[22:40])) > 8, "at first after every vote"
    assert len(set(drawn[60:])) <= 7, "later seldom"
