"""Figures of votes against values computed by hand and by statsmodels: win rates and Bradley-Terry strengths."""

import json
import math
import random

import numpy as np
import pytest
import statsmodels.api as sm

from medllm.votes.statistics import bradley_terry, vote_report, win_rates
from medllm.votes.vote import Vote, digest
from tests.votes.making import vote


def judged(number: int, a: str, b: str, choice: str, **more: object) -> Vote:
    return vote(number, model_a=a, model_b=b, choice=choice, **more)


def study(size: int = 240, seed: int = 3) -> list[Vote]:
    """Made-up votes of four raters on three models: the better model wins more often, and the longer text too."""
    chance, strength, found = random.Random(seed), {"base": -0.6, "cpt": 0.0, "final": 0.6}, []
    for number in range(size):
        a, b = chance.sample(sorted(strength), 2)
        lengths = chance.randint(50, 900), chance.randint(50, 900)
        odds = strength[a] - strength[b] + (lengths[0] - lengths[1]) / sum(lengths)
        won = "a" if chance.random() < 1 / (1 + math.exp(-odds)) else "b"
        choice = chance.choices([won, "tie", "bad"], [6, 2, 1])[0]
        found.append(judged(number, a, b, choice, question_id=str(number // 2), rater=f"r{number % 4}",
                            length_a=lengths[0], length_b=lengths[1], role=("physician", "nurse")[number % 2],
                            reasons_a=("fact",) if number % 5 == 0 else ()))  # fmt: skip
    return found


def test_a_win_rate_counts_ties_and_both_bad_as_half():
    votes = [judged(at, "base", "final", choice) for at, choice in enumerate(["a", "b", "b", "tie", "bad"])]
    final, base = win_rates(votes)
    assert (final.model, final.votes, final.wins, final.losses, final.ties, final.bad) == ("final", 5, 2, 1, 1, 1)
    assert (final.share, base.share) == (pytest.approx(3 / 5), pytest.approx(2 / 5))
    assert 0 < final.low < 3 / 5 < final.high < 1


def test_reasons_count_against_the_side_on_which_they_were_ticked():
    votes = [
        judged(1, "base", "final", "b", reasons_a=("fact", "harmful")),
        judged(2, "final", "base", "a", reasons_b=("fact",)),
        judged(3, "final", "base", "b"),
    ]
    report = vote_report(votes)
    rates = {one.model: one for one in report.win_rates}
    assert rates["base"].reasons == {"fact": 2, "harmful": 1}
    assert rates["final"].reasons == {}
    assert [(one.model, one.votes, one.share) for one in report.by_reason["fact"]] == [
        ("final", 2, 1.0),
        ("base", 2, 0.0),
    ]
    assert list(report.by_reason) == ["fact", "harmful"]


def test_a_model_that_wins_three_of_four_has_the_strength_computed_by_hand():
    """With one invented tie a coefficient and x = strength of the first, the slope 3 - 4p(2x) + 1/2 - p(x) is 0."""
    votes = [judged(at, "a", "b", choice) for at, choice in enumerate("aaab")]
    (first, second), _ = bradley_terry(votes)
    assert (first.name, second.name) == ("a", "b")
    assert first.value == pytest.approx(-second.value)
    logistic = 1 / (1 + math.exp(-first.value))
    assert 3 - 4 / (1 + math.exp(-2 * first.value)) + 1 / 2 - logistic == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("length", [False, True])
def test_strengths_are_those_of_statsmodels_on_the_same_rows_and_one_invented_tie_a_coefficient(length):
    votes = study()
    models = ["base", "cpt", "final"]
    rows = []
    for one in votes:
        row = [(model == one.model_a) - (model == one.model_b) for model in models]
        rows.append(row + ([(one.length_a - one.length_b) / (one.length_a + one.length_b)] if length else []))
    won = [{"a": 1.0, "b": 0.0}.get(one.choice, 0.5) for one in votes]
    coefficients = 3 + length
    design = np.vstack([np.array(rows, dtype=float), np.eye(coefficients)])
    theirs = sm.GLM(np.array(won + [0.5] * coefficients), design, family=sm.families.Binomial()).fit(tol=1e-12).params
    strengths, effect = bradley_terry(votes, length=length)
    ours = {one.name: one.value for one in strengths}
    for model, value in zip(models, theirs[:3] - theirs[:3].mean(), strict=True):
        assert ours[model] == pytest.approx(value, abs=1e-6)
    assert (effect is None) is not length
    if effect is not None:
        assert effect.value == pytest.approx(theirs[3], abs=1e-6)
        assert effect.low < effect.value < effect.high


def test_a_model_that_wins_every_vote_has_a_finite_strength_and_interval():
    votes = [judged(at, "worse", "better", "b") for at in range(30)]
    better = bradley_terry(votes)[0][0]
    assert better.name == "better"
    assert 1 < better.low <= better.value <= better.high < 10


def test_raters_who_differ_widen_the_interval_that_draws_raters_whole():
    """Three raters always prefer A and one always B: by questions each vote counts apart, by raters four do."""
    votes = [judged(at, "a", "b", "b" if at % 4 == 0 else "a", rater=f"r{at % 4}") for at in range(120)]
    by_question, by_rater = (bradley_terry(votes, cluster)[0][0] for cluster in ("question", "rater"))
    assert by_question.value == by_rater.value
    assert by_rater.high - by_rater.low > 2 * (by_question.high - by_question.low)


def test_one_cluster_gives_no_interval():
    (first, _), _ = bradley_terry([judged(at, "a", "b", "a", rater="r1") for at in range(9)], "rater")
    assert math.isnan(first.low) and math.isnan(first.high)
    assert vote_report([judged(1, "a", "b", "a")], "rater").to_json()["strengths"][0]["low"] is None


def test_a_corrected_vote_and_a_skip_count_in_no_figure():
    first = judged(1, "base", "final", "a")
    corrected = judged(1, "base", "final", "b", vote_id=digest("later"), supersedes=first.vote_id)
    skipped = judged(2, "base", "final", "skip")
    report = vote_report([first, corrected, skipped])
    assert (report.votes, report.corrected, report.skipped, report.choices) == (1, 1, 1, {"b": 1})
    assert [(one.model, one.share) for one in report.win_rates] == [("final", 1.0), ("base", 0.0)]


def test_the_same_votes_give_the_same_report_and_none_give_an_empty_one():
    votes = study(60)
    assert json.dumps(vote_report(votes).to_json()) == json.dumps(vote_report(votes).to_json())
    empty = vote_report([])
    assert (empty.votes, empty.win_rates, empty.strengths, empty.length_effect) == (0, [], [], None)
    assert json.loads(json.dumps(empty.to_json(), allow_nan=False))["agreement"]["fleiss"]["value"] is None
