"""IgakuQA is read whole: points, keys, vignettes, prohibited choices, dates, and its own worked examples."""

import json
from collections import Counter
from datetime import date

import pytest

from medllm.exam.benchmarks import CATALOGUE, exemplars, load
from medllm.exam.question import index
from tests.refusals import refused


@pytest.fixture(scope="module")
def igakuqa(shared_data):
    return index(load("igakuqa", shared_data / "igakuqa"))


def test_five_years_have_400_questions_and_their_published_points(igakuqa):
    points = Counter()
    for question in igakuqa.values():
        points[question.year] += question.points
    assert points == {2018: 499, 2019: 496, 2020: 496, 2021: 500, 2022: 494}
    assert Counter(question.year for question in igakuqa.values()) == dict.fromkeys(points, 400)
    assert len(igakuqa) == CATALOGUE["igakuqa"].questions


def test_answers_are_one_two_or_three_letters_or_a_number(igakuqa):
    wanted = Counter(0 if q.numeric else q.answers_wanted for q in igakuqa.values())
    assert wanted == {0: 12, 1: 1702 - 12, 2: 243, 3: 55}
    assert sum(question.image for question in igakuqa.values()) == 529
    assert sum(question.points == 0 for question in igakuqa.values()) == 11


@pytest.mark.parametrize(
    ("question_id", "gold"),
    [("116B50", ["2.1"]), ("116F74", ["0.4"]), ("114C75", ["10.0"]), ("112F84", ["1.2"]), ("114F75", ["130", "1130"])],
)
def test_numeric_keys_without_their_decimal_point_are_repaired(igakuqa, question_id, gold):
    assert [next(iter(answer)) for answer in igakuqa[question_id].gold] == gold


def test_both_accepted_answers_and_the_question_that_is_always_right_are_known(igakuqa):
    assert igakuqa["112B30"].gold == (frozenset("a"), frozenset("d"))
    assert igakuqa["112B30"].key == ("a or d",)
    assert [q.question_id for q in igakuqa.values() if q.any_answer_correct] == ["116A71"]


def test_150_questions_of_100_vignettes_get_their_lost_case_text(igakuqa):
    lost = [question for question in igakuqa.values() if question.vignette_text]
    assert len(lost) == 150
    assert sum(question.points for question in lost) == 246
    assert len({question.vignette_id for question in igakuqa.values() if question.vignette_id}) == 100
    follower = igakuqa["112B41"]
    assert follower.vignette_id == "112B40"
    assert follower.vignette_text.startswith("22歳の女性。腹痛、嘔吐および発熱を主訴に来院した。")
    assert "どれか" not in follower.vignette_text, "the first question's own question is not part of the case"


def test_prohibited_choices_are_normalised_letters_of_the_question(igakuqa):
    with_prohibited = [question for question in igakuqa.values() if question.prohibited]
    assert len(with_prohibited) == 135
    assert all(question.prohibited <= set(question.letters) for question in with_prohibited)
    assert igakuqa["112A27"].prohibited == frozenset("cde")
    assert igakuqa["112F66"].prohibited == frozenset("b")


def test_every_question_carries_its_exam_date_category_and_human_accuracy(igakuqa):
    assert {q.exam_date for q in igakuqa.values() if q.year == 2018} == {date(2018, 2, 10)}
    assert min(q.exam_date for q in igakuqa.values()) == CATALOGUE["igakuqa"].first
    assert Counter(q.category for q in igakuqa.values()).most_common(1) == [("公衆衛生", 270)]
    known = [q.human_accuracy for q in igakuqa.values() if q.human_accuracy is not None]
    assert len(known) == 1987
    assert sum(known) / len(known) == pytest.approx(0.833, abs=5e-4)


def test_the_worked_examples_are_from_2006_and_have_explanations(shared_data):
    found = exemplars("igakuqa", shared_data / "igakuqa")
    assert [question.gold_answer for question in found] == ["e", "a,b", "c"]
    assert all(question.explanation and question.exam_date.year == 2006 for question in found)


def test_section_b_of_the_119th_exam_is_an_exam_with_points_cases_and_the_sets_own_keys(shared_data):
    section = index(load("igakuqa119", shared_data / "igakuqa119"))
    assert len(section) == 50
    assert sum(question.points for question in section.values()) == 100, "25 of one point, 25 of three"
    keys = Counter(question.gold_answer for question in section.values())
    assert keys == {"a": 10, "b": 12, "c": 5, "d": 6, "e": 17}
    assert section["119B1"].choices[0] == "鶏眼 - うおのめ"
    assert (section["119B42"].vignette_id, section["119B43"].vignette_id) == ("119B41", "119B43")
    assert sum(question.image for question in section.values()) == 4
    assert {(question.exam_date, question.required) for question in section.values()} == {(date(2025, 2, 8), True)}


def test_what_the_file_of_the_119th_exam_lacks_is_shown_as_lacking_and_either_key_of_e28_counts(tmp_path):
    rows = [
        {"number": "119C18", "question": "", "choices": ["a. x", "b. y"], "has_image": False},
        {"number": "119C19", "question": "どれか。", "choices": ["a. x", "b. y", "d. z"], "has_image": False},
        {"number": "119D75", "question": "求めよ。解答：①.② kg", "choices": [], "has_image": True},
        {"number": "119E28", "question": "どれか。2つ選べ。", "choices": ["a. x", "b. y", "c. z"], "has_image": False},
    ]
    for letter in "CDE":
        of = [row for row in rows if row["number"][3] == letter]
        (tmp_path / f"119{letter}_json.json").write_text(json.dumps(of), "utf-8")
    keys = '問題番号,解答\n119C18,a\n119C19,"b,d"\n119D75,2.1\n119E28,a\n'
    (tmp_path / "correct_answers.csv").write_text(keys, "utf-8-sig")
    exam = index(load("igakuqa119", tmp_path))
    assert exam["119C18"].text == "(記載なし)"
    assert (exam["119C19"].choices, exam["119C19"].gold) == (("x", "y", "(記載なし)", "z"), (frozenset("bd"),))
    assert (exam["119D75"].numeric, exam["119D75"].gold) == (True, (frozenset({"2.1"}),))
    assert exam["119E28"].gold == (frozenset("a"), frozenset("c"))
    (tmp_path / "correct_answers.csv").write_text("問題番号,解答\n119C18,a\n", "utf-8")
    with refused("exam.no-key", "119C19 has no key"):
        load("igakuqa119", tmp_path)
