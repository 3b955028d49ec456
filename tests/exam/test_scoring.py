"""Scores come out as published, carry their denominators, and do not depend on the order of anything."""

import dataclasses
import random

import pytest

from medllm.exam.benchmarks import load
from medllm.exam.predictions import Prediction, System, read_predictions
from medllm.exam.question import index
from medllm.exam.scoring import score
from tests.exam.making import question
from tests.refusals import refused

PUBLISHED = {"gpt4": 382, "chatgpt": 266, "gpt3": 209, "translate_chatgpt-en": 281, "student-majority": 472}
"""Points of 499 in 2018 by IgakuQA's own scorer."""


@pytest.fixture(scope="module")
def igakuqa(shared_data):
    return load("igakuqa", shared_data / "igakuqa")


def of_2018(shared_data, igakuqa, model):
    files = sorted((shared_data / "igakuqa" / "baseline_results" / "2018").glob(f"112-?_{model}.jsonl"))
    (system,) = read_predictions(files, index(igakuqa), "igakuqa")
    return system


@pytest.mark.parametrize("model", PUBLISHED)
def test_the_published_points_of_2018_come_out(shared_data, igakuqa, model):
    (result,) = score(igakuqa, [of_2018(shared_data, igakuqa, model)], rules="official")
    tally = result.years["2018"]
    assert (tally.points, tally.total, tally.count) == (PUBLISHED[model], 499, 400)
    assert result.score.value == tally.points / 499
    assert result.missing == 0


@pytest.mark.parametrize(("model", "mean"), [("gpt4", 0.782), ("chatgpt", 0.550)])
def test_the_published_means_of_five_years_come_out_where_all_years_are_there(shared_data, igakuqa, model, mean):
    files = sorted((shared_data / "igakuqa" / "baseline_results").glob(f"*/11?-?_{model}.jsonl"))
    if len(files) != 30:
        pytest.skip(f"baseline_results holds {len(files)} of {model}'s 30 files: only 2018 can be checked")
    (system,) = read_predictions(files, index(igakuqa), "igakuqa")
    (result,) = score(igakuqa, [system], rules="official")
    assert round(result.score.value, 3) == mean


YEARLY = {"gpt4": (0.782, (382, 385, 387, 398, 392)), "chatgpt": (0.550, (266, 250, 266, 297, 287))}
"""The published points of 2018 to 2022 and the score they are reported as."""


@pytest.mark.parametrize("model", YEARLY)
def test_the_published_points_of_five_years_make_the_published_score(igakuqa, model):
    published, yearly = YEARLY[model]
    left = dict(zip(range(2018, 2023), yearly, strict=True))
    left[2022] -= next(one.points for one in igakuqa if one.any_answer_correct)
    replies = {}
    for one in igakuqa:
        right = not one.any_answer_correct and one.points <= left[one.year]
        left[one.year] -= one.points if right else 0
        text = ",".join(sorted(one.gold[0] if len(one.gold) > 1 else one.key)) if right else "?"
        replies[one.question_id] = Prediction(one.question_id, text, "made to earn these points")
    assert set(left.values()) == {0}
    (result,) = score(igakuqa, [System(model, None, replies)], rules="official")
    assert tuple(int(tally.points) for tally in result.years.values()) == yearly
    assert round(result.score.value, 3) == published
    assert round(result.whole.score, 3) == published


def test_normalised_rules_give_back_what_spaces_and_missing_points_had_cost(shared_data, igakuqa):
    systems = [of_2018(shared_data, igakuqa, model) for model in PUBLISHED]
    official = score(igakuqa, systems, rules="official")
    normalised = score(igakuqa, systems, rules="normalised")
    gains = {
        ours.model: ours.whole.points - theirs.whole.points for ours, theirs in zip(normalised, official, strict=True)
    }
    assert all(gain >= 0 for gain in gains.values())
    assert gains["chatgpt"] > 0
    assert gains["student-majority"] == 0


def test_gpt4_passes_2018_by_one_point_of_the_required_part(shared_data, igakuqa):
    (result,) = score(igakuqa, [of_2018(shared_data, igakuqa, "gpt4")], rules="official")
    (verdict,) = result.verdicts
    assert (verdict.required, verdict.required_line, verdict.general) == (161, 160, 221)
    assert verdict.passed
    assert result.parts["part"]["required"].points == 161


def test_half_of_the_predictions_are_scored_over_the_whole_year(shared_data, igakuqa):
    whole = of_2018(shared_data, igakuqa, "gpt4")
    half = System("gpt4", None, dict(list(whole.predictions.items())[:200]))
    (result,) = score(igakuqa, [half], rules="official", scope="year")
    assert result.whole.count == 400
    assert result.whole.total == 499
    assert (result.missing, result.attempted.count) == (200, 200)
    assert result.attempted.points == result.whole.points
    assert result.verdicts == [], "a part of an exam neither passes nor fails"


def test_one_section_alone_is_scored_on_its_own_questions_and_is_no_trial(shared_data, igakuqa):
    file = shared_data / "igakuqa" / "baseline_results" / "2018" / "112-A_gpt4.jsonl"
    systems = read_predictions([file], index(igakuqa), "igakuqa")
    (result,) = score(igakuqa, systems, rules="official")
    assert (result.scope, result.trial, result.missing) == ("asked", False, 325)
    assert (result.whole.points, result.whole.total) == (56, 74)
    assert result.score.value == 56 / 74
    (of_the_year,) = score(igakuqa, systems, rules="official", scope="year")
    assert of_the_year.score.value == 56 / 499


def test_questions_drawn_from_all_sections_are_a_trial():
    exam = [question(question_id=f"{s}{n}", text=f"{s}{n}", year=1, section=s) for s in "AB" for n in range(4)]
    drawn = {name: Prediction(name, "b", "here") for name in ("A0", "A2", "B1")}
    (result,) = score(exam, [System("m", None, drawn)])
    assert (result.scope, result.trial, result.missing, result.whole.count) == ("asked", True, 5, 3)
    whole_section = {name: Prediction(name, "b", "here") for name in ("A0", "A1", "A2", "A3", "B1")}
    (result,) = score(exam, [System("m", None, whole_section)])
    assert not result.trial


def test_differences_are_paired_over_shared_questions_and_corrected_for_their_number():
    exam = [question(question_id=str(n), text=str(n)) for n in range(10)]

    def system(model, wrong, names=range(10)):
        return System(model, None, {str(n): Prediction(str(n), "a" if n in wrong else "b", "here") for n in names})

    systems = [system("first", ()), system("second", range(6)), system("third", (0,), range(5))]
    one, two, three = (result.difference for result in score(exam, systems))
    assert one is None
    assert two.estimate.value == pytest.approx(-0.6)
    assert (two.questions, two.only_reference, two.only_this) == (10, 6, 0)
    assert two.p == pytest.approx(2 / 2**6), "exact McNemar, 6 against 0"
    assert two.p_holm == pytest.approx(2 * two.p)
    assert three.estimate.value == pytest.approx(-0.2)
    assert (three.questions, three.p) == (5, 1.0)
    assert [result.difference is None for result in score(exam, systems, against="second")] == [False, True, False]
    with refused("exam.unknown-reference", "fourth", "first, second, third"):
        score(exam, systems, against="fourth")


def test_scoring_does_not_depend_on_the_order_of_the_predictions(shared_data, igakuqa):
    whole = of_2018(shared_data, igakuqa, "chatgpt")
    items = list(whole.predictions.items())
    random.Random(3).shuffle(items)
    results = score(igakuqa, [whole, System("chatgpt", None, dict(items))])
    assert results[0] == dataclasses.replace(results[1], difference=None)


def test_parts_add_up_to_the_whole(shared_data, igakuqa):
    (result,) = score(igakuqa, [of_2018(shared_data, igakuqa, "gpt4")])
    for part in ("section", "part", "category", "material"):
        tallies = result.parts[part].values()
        assert sum(tally.points for tally in tallies) == result.whole.points
        assert sum(tally.count for tally in tallies) == 400


def test_years_count_alike_in_the_score_and_by_points_in_the_whole():
    exam = [question(question_id=f"1-{n}", year=1, text=str(n)) for n in range(2)]
    exam += [question(question_id=f"2-{n}", year=2, text=str(n), points=3) for n in range(4)]
    right = {q.question_id: Prediction(q.question_id, "b" if q.year == 2 else "a", "here") for q in exam}
    (result,) = score(exam, [System("m", None, right)])
    assert result.score.value == pytest.approx((0 / 2 + 12 / 12) / 2)
    assert result.whole.score == pytest.approx(12 / 14)
    assert result.accuracy.value == pytest.approx(4 / 6)


def test_a_part_with_only_right_answers_still_has_an_interval_with_width():
    exam = [question(question_id=str(n), text=str(n), category="眼科") for n in range(10)]
    right = {q.question_id: Prediction(q.question_id, "b", "here") for q in exam}
    (result,) = score(exam, [System("m", None, right)])
    interval = result.parts["category"]["眼科"].interval
    assert interval.high == 1.0
    assert interval.low == pytest.approx(0.722, abs=5e-4), "Wilson, 10 of 10"


def test_prohibited_choices_are_counted_apart_from_the_score():
    exam = [question(question_id=str(n), text=str(n), prohibited=frozenset("e")) for n in range(3)]
    picked = {q.question_id: Prediction(q.question_id, answer, "here") for q, answer in zip(exam, "ebe", strict=True)}
    (result,) = score(exam, [System("m", None, picked)])
    assert (result.prohibited, result.prohibited_of, result.whole.correct) == (2, 3, 1)
