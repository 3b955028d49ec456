"""The stability report, against cases small enough to be computed by hand."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest

from medllm.exam.record import PROMPTS
from medllm.exam.stability.plot import draw_stability
from medllm.exam.stability.report import ScoreRow, columns, score_table, stability_report
from medllm.exam.stability.text import report_json, report_lines
from medllm.exam.stability.trainings import trainings
from medllm.exam.statistics import ClusteredSample, share_interval
from tests.exam.making import record
from tests.refusals import refused

#                  plain  explained   (True right; a letter: that wrong answer; None: unread)
OUTCOMES = [
    (True, True), (True, True), (True, True), (True, "b"), (True, None), ("b", True), ("b", "b"), ("b", "c"),
    (None, None), (None, True),
]  # fmt: skip


def replies(model="m", outcomes=OUTCOMES, **given):
    for number, pair in enumerate(outcomes):
        for prompt, outcome in zip(("plain", "explain"), pair, strict=True):
            status = "answered" if outcome else "truncated" if prompt == "explain" else "unparsed"
            yield record(
                f"q{number}", model=model, prompt=prompt, correct=outcome is True,
                answer="a" if outcome is True else outcome, status=status, **given,
            )  # fmt: skip


def change_of(records):
    (stability,) = stability_report(list(records)).models
    return stability.change


def test_transitions_retention_and_churn_of_ten_questions():
    change = change_of(replies())
    assert change.transitions == {
        "right_right": 3, "right_wrong": 2, "wrong_right": 2, "wrong_same": 1, "wrong_other": 2,
    }  # fmt: skip
    assert (change.lost, change.gained, change.p) == (2, 2, 1.0)
    assert change.retention.value == pytest.approx(3 / 5)
    assert change.churn.value == pytest.approx(4 / 10)
    assert change.delta.value == pytest.approx(0.0)
    assert change.delta.interval.low < 0 < change.delta.interval.high


def test_no_net_change_is_not_no_change():
    stable = [(True, True)] * 8 + [("b", "b")] * 2
    swapped = [(True, True)] * 6 + [(True, "b")] * 2 + [("b", True)] * 2
    quiet, churning = change_of(replies(outcomes=stable)), change_of(replies(outcomes=swapped))
    assert quiet.delta.value == pytest.approx(churning.delta.value)
    assert (quiet.churn.value, churning.churn.value) == (0.0, 0.4)


def test_the_lost_ones_are_distinguished_and_taken_out():
    change = change_of(replies())
    assert {name: count for name, count in change.losses.items() if count} == {"truncated": 1, "other_answer": 1}
    assert {"thinking", "too_long", "refused", "run_on", "loop", "wrong_count", "unparsed"} < set(change.losses)
    assert change.readable == 7, "q4, q8 and q9 have a reply that could not be read"
    assert change.delta_readable.value == pytest.approx(4 / 7 - 4 / 7), "of these 7, 4 were right each way"


def test_a_lost_answer_is_of_one_kind_in_row_card_figure_and_text_alike(tmp_path):
    outcomes = [(True, True)] * 6 + [(True, "b"), (True, "c"), (True, None), (True, None)]
    records = [
        replace(each, prohibited="c" if each.answer == "c" else None, status="unparsed" if last else each.status)
        for each in replies(outcomes=outcomes)
        for last in [each.question_id == "q9" and each.answer is None]
    ]
    report = stability_report(records)
    (row,) = score_table(report)
    assert row.change.lost_kinds == {"lost_wrong": 1, "lost_prohibited": 1, "lost_unread": 1, "lost_cut": 1}
    assert row.losses() == (
        "m, invented: of 10 right answers explaining lost 4 (1 to another answer, 1 to a prohibited choice, "
        "1 without an answer, 1 cut off); replies without an answer: explained 2; "
        "where both replies hold an answer the change is -25.0"
    )
    kinds = "(2 of them without an answer, 1 of these cut off, 1 to a prohibited choice)"
    assert f"lost 4 {kinds}" in "\n".join(report_lines(report))
    draw_stability(report, tmp_path / "figure.svg")
    drawn = (tmp_path / "figure.svg").read_text(encoding="utf-8")
    assert "other answer 1, prohibited 1, no answer 1, cut off 1" in drawn


def test_where_only_other_answers_are_lost_no_kinds_are_listed():
    (row,) = score_table(stability_report(replies(outcomes=[(True, True), (True, "b")])))
    assert (row.change.lost, row.change.lost_kinds, row.losses()) == (1, {}, None)


def test_lost_and_gained_are_compared_with_what_guessing_brings():
    # Half of 40 questions are known, the others guessed among four: 22.5 right each way by expectation.
    outcomes = [(True, True)] * 20 + [(True, "b")] * 3 + [("b", True)] * 3 + [("b", "b")] * 14
    change = change_of(replies(outcomes=outcomes, choices=4))
    guessed = (1 - 23 / 40) / (1 - 1 / 4)
    assert change.by_chance == pytest.approx(40 * guessed * (1 / 4) * (3 / 4))
    beyond = change.lost_beyond_chance
    assert beyond.value == pytest.approx(3 - change.by_chance)
    ends = share_interval(
        np.repeat([1.0, 0.0], [3, 37]), ClusteredSample(np.ones(40), np.arange(40), np.zeros(40, int))
    )
    assert beyond.interval.low == pytest.approx(40 * ends.low - change.by_chance)
    assert beyond.interval.high == pytest.approx(40 * ends.high - change.by_chance)
    assert change.gained_beyond_chance.value == pytest.approx(beyond.value), "as many were gained as were lost"
    lines = "\n".join(report_lines(stability_report(replies(outcomes=outcomes, choices=4))))
    assert f"beyond that {beyond.value:+.1f} [{beyond.interval.low:+.1f}, {beyond.interval.high:+.1f}] lost, " in lines
    assert change_of(replies(outcomes=outcomes)).by_chance is None, "how many choices there were is not recorded"
    numbers = change_of(replies(outcomes=outcomes, choices=0))
    assert numbers.by_chance == 0.0, "a number is not guessed"


def test_two_asked_of_five_are_guessed_less_often_than_one():
    def records(gold):
        return [record(f"q{n}", prompt=p, correct=False, gold=gold, choices=5) for n in range(10) for p in PROMPTS]

    one, two = (change_of(records(gold)).by_chance for gold in ("a", "a,b"))
    assert (one, two) == (pytest.approx(10 * 0.2 * 0.8), pytest.approx(10 * 0.1 * 0.9))


def test_a_trial_is_marked_in_every_row_and_comparison_and_in_the_text():
    records = [*replies("m", trial=True), *replies("n")]
    report = stability_report(records)
    assert [(row.name, row.trial) for row in score_table(report)] == [("m (trial)", True), ("n", False)]
    assert all(one.trial for one in report.comparisons)
    lines = list(report_lines(report))
    assert "m on invented (a trial: only a part of the exam was asked)" in lines and "n on invented" in lines
    assert [one["trial"] for one in report_json(report)["models"]] == [True, False]


def test_points_weigh_the_score_but_not_the_transitions():
    heavy = list(replies(outcomes=[(True, "b")], points_total=3.0)) + [
        record("light", prompt=prompt, correct=True) for prompt in ("plain", "explain")
    ]
    change = change_of(heavy)
    assert change.delta.value == pytest.approx(1 / 4 - 4 / 4)
    assert change.transitions["right_wrong"] == 1


def test_the_score_is_the_mean_of_the_years():
    records = [record(f"a{n}", year=2018, prompt=p) for n in range(1) for p in ("plain", "explain")]
    records += [
        record(f"b{n}", year=2019, prompt=p, correct=p == "plain") for n in range(3) for p in ("plain", "explain")
    ]
    (stability,) = stability_report(records).models
    assert stability.conditions["explain"].score.value == pytest.approx((1 + 0) / 2)
    assert stability.conditions["explain"].accuracy.value == pytest.approx(1 / 4)


def test_questions_asked_only_one_way_are_left_out_and_counted():
    change = change_of([*replies(), record("alone", prompt="plain")])
    assert (change.questions, change.unpaired) == (10, 1)


def test_a_model_asked_one_way_has_a_score_but_no_change():
    (stability,) = stability_report([record("q", prompt="explain")]).models
    assert stability.change is None
    assert stability.conditions["explain"].score.value == 1.0


def test_models_are_compared_on_the_questions_they_share_with_holm_s_correction():
    strong = [(True, True)] * 12
    weak = [(True, "b")] * 8 + [("b", "b")] * 4
    records = [*replies("weak", weak), *replies("strong", strong), *replies("other", strong[:10])]
    found = {(one.first, one.second, one.prompt): one for one in stability_report(records).comparisons}
    assert len(found) == 6
    plain = found["weak", "strong", "plain"]
    assert (plain.only_first, plain.only_second, plain.questions) == (0, 4, 12)
    assert plain.difference.value == pytest.approx(4 / 12)
    assert plain.p == pytest.approx(2 / 16)
    assert plain.p_holm == pytest.approx(3 / 8), "the least of three p values"
    assert found["weak", "other", "plain"].questions == 10


def test_what_a_model_loses_against_another_is_set_apart_from_what_guesses_would_lose():
    before = [(True, True)] * 6 + [("b", "b")] * 4
    after = [(True, True)] * 2 + [("b", "b")] * 3 + [(None, None)] + [(True, True)] * 3 + [("b", "b")]
    choices = [replace(row, choices=5) for row in [*replies("old", before), *replies("new", after)]]
    (plain,) = [row for row in stability_report(choices).comparisons if row.prompt == "plain"]
    assert (plain.first, plain.second, plain.only_first, plain.only_first_unread, plain.only_second) == (
        "old", "new", 4, 1, 3,
    )  # fmt: skip
    # Both are right on at least half of the questions: with five choices (1 - .6) / (1 - .2) = .5 and
    # (1 - .5) / (1 - .2) = .625 are guessed, so half of them both times, each right and then wrong by .2 * .8.
    assert plain.by_chance == pytest.approx(10 * 0.5 * 0.2 * 0.8)
    assert plain.lost_beyond_chance.value == pytest.approx(4 - 0.8)
    assert plain.gained_beyond_chance.value == pytest.approx(3 - 0.8)
    assert stability_report(list(replies("old", before))).comparisons == []


def test_nothing_depends_on_the_order_of_the_records():
    records = [*replies("m"), *replies("n", OUTCOMES[::-1])]
    shuffled = records[:]
    random.Random(1).shuffle(shuffled)
    assert {s.model: s for s in stability_report(records).models} == {
        s.model: s for s in stability_report(shuffled).models
    }


def test_two_files_of_the_same_model_are_a_fault():
    with refused("exam.answered-twice", "question q0 of invented", "by m (plain, sample 0)"):
        stability_report([*replies(), *replies()])


def test_records_of_two_versions_of_an_exam_are_a_fault():
    with refused("exam.different-exams", "question q of", "points 3.0 for n", "1.0 for m"):
        stability_report([record("q", model="m"), record("q", model="n", points_total=3.0)])


def test_several_exams_are_reported_each_on_its_own():
    records = [*replies(), *replies(benchmark="second")]
    assert [one.benchmark for one in stability_report(records).models] == ["invented", "second"]


def test_a_model_none_of_whose_explained_replies_can_be_read_has_no_readable_delta():
    change = change_of(replies(outcomes=[(True, None)] * 5))
    assert (change.readable, change.delta_readable.value, change.delta_readable.interval) == (0, None, None)
    assert change.delta.value == -1.0
    assert change.retention.value == 0.0


def test_a_model_never_right_has_no_retention():
    change = change_of(replies(outcomes=[("b", "b")] * 5))
    assert change.retention.value is None


#            plain  explained  after thinking
THREE_WAYS = [
    (True, True, True), (True, "b", True), (True, "b", "b"), ("b", True, True), ("b", "b", True), ("b", "b", None),
]  # fmt: skip


def three_ways(model="m"):
    for number, outcomes in enumerate(THREE_WAYS):
        for prompt, outcome in zip(("plain", "explain", "think"), outcomes, strict=True):
            thought = {"reasoning": "まず a を疑う", "reasoning_tokens": 10 + number} if prompt == "think" else {}
            yield record(
                f"q{number}", model=model, prompt=prompt, correct=outcome is True, **thought,
                answer="a" if outcome is True else outcome, status="answered" if outcome else "truncated",
            )  # fmt: skip


def test_plain_explained_and_thought_replies_are_compared_in_pairs_over_the_same_questions():
    (stability,) = stability_report(list(three_ways())).models
    counts = {pair: (change.lost, change.gained, change.questions) for pair, change in stability.changes.items()}
    assert counts == {("plain", "explain"): (2, 1, 6), ("plain", "think"): (1, 2, 6), ("explain", "think"): (0, 2, 6)}
    assert stability.changes["plain", "think"].delta.value == pytest.approx(4 / 6 - 3 / 6)
    assert stability.changes["explain", "think"].delta.value == pytest.approx(4 / 6 - 2 / 6)
    assert stability.change is stability.changes["plain", "explain"]
    thought = stability.conditions["think"]
    assert (thought.thought, thought.reasoning_tokens, thought.statuses["truncated"]) == (6, 12.5, 1)
    assert (stability.conditions["plain"].thought, stability.conditions["plain"].reasoning_tokens) == (0, None)


def test_only_the_prompts_that_the_results_hold_are_compared_and_shown():
    records = [one for one in three_ways() if one.prompt != "explain"]
    report = stability_report(records)
    (stability,) = report.models
    assert set(stability.changes) == {("plain", "think")} and stability.change is None
    assert [column.key for column in columns(score_table(report))] == ["plain", "think", "think_minus_plain"]
    lines = "\n".join(report_lines(report))
    assert "thinking changes the score of plain answers by +0.167" in lines
    assert "thought before 6 of 6 replies, median 12.5 tokens" in lines and "explain" not in lines
    written = json.loads(json.dumps(report_json(report)))["models"][0]
    assert [(one["before"], one["after"]) for one in written["changes"]] == [("plain", "think")]
    assert written["change"] is None


def test_a_row_of_three_prompts_is_read_back_as_it_was_written():
    rows = score_table(stability_report(list(three_ways())))
    assert [ScoreRow.from_json(json.loads(json.dumps(row.to_json()))) for row in rows] == rows
    (text,) = [row.as_text() for row in rows]
    assert text["delta"].startswith("-16.7") and text["think_minus_plain"].startswith("+16.7")
    assert text["think_minus_explain"].startswith("+33.3")


def test_the_figure_draws_three_prompts(tmp_path):
    draw_stability(stability_report(list(three_ways())), tmp_path / "three.svg")
    assert (tmp_path / "three.svg").stat().st_size > 10_000


def test_models_are_compared_after_thinking_and_trainings_over_seeds_too():
    report = stability_report([*three_ways("final-seed1"), *three_ways("final-seed2")])
    assert {one.prompt for one in report.comparisons} == {"plain", "explain", "think"}
    (row,) = trainings(report)
    assert set(row.thinking) == {"think_minus_plain", "think_minus_explain"} and set(row.scores) >= {"think"}
    assert row.thinking["think_minus_plain"].mean == pytest.approx(1 / 6)
