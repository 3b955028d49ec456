"""Exams before the work: years, keys, dates, worked examples, and copies of what is held out."""

import json
import shutil

import pytest

from medllm.preflight.exams import _span
from tests.preflight.conftest import Ward, question, write_exam


def test_a_recipe_that_is_right_has_no_fault(ward: Ward):
    assert ward.codes(thorough=True) == []


def test_a_year_that_no_exam_has_is_refused_with_the_years_it_has(ward: Ward):
    (fault,) = ward.find(evaluate__years=[2025])
    assert (fault.place, fault.code) == ("evaluate.years", "recipe.unknown-year")
    assert "naika has 2019" in fault.text.replace("no exam here is of 2025: ", "")
    assert ward.codes(evaluate__years=[2019]) == []


def test_questions_without_a_year_do_not_hide_a_year_that_no_question_has(ward: Ward):
    write_exam(ward.folder / "naika", [question(1, "2019-02-09"), question(2, "2019-02-09", year=None)])
    assert ward.codes(evaluate__years=[2025]) == [("evaluate.years", "recipe.unknown-year")]


def test_igakuqas_years_are_named_as_a_range(ward: Ward, shared_data):
    shutil.copytree(shared_data / "igakuqa", ward.folder / "igakuqa")
    (fault,) = ward.find(
        exams={"igakuqa": "./igakuqa"},
        corpus__held_out=["igakuqa"],
        evaluate__benchmarks=["igakuqa"],
        evaluate__years=[2025],
    )
    assert "igakuqa has 2018 to 2022" in fault.text


@pytest.mark.parametrize(("years", "text"), [([2018, 2019, 2020], "2018 to 2020"), ([2018, 2026], "2018, 2026")])
def test_years_are_written_as_people_do(years, text):
    assert _span(years) == text


def test_a_key_that_no_reply_can_match_is_a_fault_of_the_exam(ward: Ward):
    write_exam(ward.folder / "naika", [question(1, "2019-02-09", choices=["b", "a"]), question(2, "2019-02-09")])
    (fault,) = ward.find()
    assert (fault.place, fault.code) == ("exams.naika", "exam.key-unmatched")
    assert "Q1 (a)" in fault.text


def test_the_first_day_may_be_left_out_where_each_row_has_its_own(ward: Ward):
    bare = {"naika": "./naika"}
    assert ward.codes(exams=bare) == []
    dated, undated = question(1, "2019-02-09"), question(2, "2019-02-09", exam_date=None)
    write_exam(ward.folder / "naika", [dated, undated])
    assert ward.codes(exams=bare) == [], "a year after the cutoff's is enough"
    write_exam(ward.folder / "naika", [dated, question(2, "2019-02-09", exam_date=None, year=None)])
    (fault,) = ward.find(exams=bare)
    assert (fault.place, fault.code) == ("exams.naika", "recipe.no-first-day")
    assert "1 of 2" in fault.text and "(Q2)" in fault.text
    assert ward.codes() == [], "a stated first day counts for all rows"
    write_exam(ward.folder / "naika", [question(1, "2015-02-07"), question(2, "2019-02-09")])
    assert ward.codes(exams=bare) == [("exams.naika", "recipe.exam-before-cutoff")]


def test_rows_that_begin_before_the_stated_first_day_and_by_the_cutoff_are_two_faults(ward: Ward):
    write_exam(ward.folder / "naika", [question(1, "2015-02-07"), question(2, "2019-02-09")])
    assert ward.codes() == [
        ("exams.naika.first", "recipe.first-contradicted"),
        ("exams.naika", "recipe.exam-before-cutoff"),
    ]


def test_a_question_by_the_cutoff_is_allowed_where_its_year_is_not_asked(ward: Ward):
    write_exam(ward.folder / "naika", [question(1, "2015-02-07"), question(2, "2019-02-09")])
    assert ward.codes(exams__naika__first="2015-02-07", evaluate__years=[2019]) == []


def test_shots_need_as_many_worked_examples(ward: Ward):
    (fault,) = ward.find(evaluate__shots=2)
    assert (fault.place, "worked examples" in fault.text) == ("evaluate.shots", True)
    write_exam(ward.folder / "naika", [question(21, "2014-02-08")], "exemplars.jsonl")
    assert ward.codes(evaluate__shots=2) == [("evaluate.shots", "exam.too-few-exemplars")]
    assert ward.codes(evaluate__shots=1, thorough=True) == []


def test_a_worked_example_that_holds_a_question_that_is_asked_is_found_by_the_thorough_preflight(ward: Ward):
    leak = question(21, "2014-02-08", explanation="".join(question(1, "2019-02-09")["choices"]) * 3)
    leak["text"] = question(1, "2019-02-09")["text"] + "以下から選べ。"
    leak["choices"] = [*question(1, "2019-02-09")["choices"], "経過観察"]
    write_exam(ward.folder / "naika", [leak], "exemplars.jsonl")
    assert ward.codes(evaluate__shots=1) == []
    assert [place for place, _ in ward.codes(evaluate__shots=1, thorough=True)] == ["evaluate.shots"]


def test_a_file_that_is_trained_on_and_held_out_is_a_fault(ward: Ward):
    shutil.copy(ward.folder / "naika" / "exam.jsonl", ward.folder / "past" / "copy.jsonl")
    assert ("preferences.data[0]", "recipe.held-out-trained") in ward.codes()
    assert ("corpus.data[0]", "recipe.held-out-trained") in ward.codes(
        corpus__data={"source": "./naika", "exam": "own", "license": "cc0-1.0"}
    )


def test_a_broken_row_is_named_with_its_file_and_line(ward: Ward):
    rows = [question(1, "2019-02-09"), question(2, "2019-02-09", answer="z")]
    write_exam(ward.folder / "naika", rows)
    (fault,) = ward.find()
    assert fault.place == "exams.naika"
    assert "exam.jsonl line 2" in fault.text


def test_all_faults_come_at_once(ward: Ward):
    write_exam(ward.folder / "naika", [question(1, "2019-02-09", choices=["b", "a"])])
    (ward.folder / "base" / "tokenizer.json").unlink()
    places = {place for place, _ in ward.codes(corpus__data="./texts", evaluate__shots=1, evaluate__years=[2025])}
    assert places == {"exams.naika", "base", "corpus.data[0]", "evaluate.shots", "evaluate.years"}


def test_too_few_past_questions_are_counted_by_reason(ward: Ward):
    late = [question(number, "2018-02-10") for number in range(11, 15)]
    write_exam(ward.folder / "past", [*late, question(15, "2015-02-07")])
    (fault,) = ward.find(preferences__shots=3)
    assert (fault.place, fault.code) == ("preferences.data", "preferences.too-few-questions")
    assert "1 of 5" in fault.text
    assert "4 after the cutoff" in fault.text
    assert json.loads((ward.folder / "past" / "exam.jsonl").read_text("utf-8").splitlines()[0])["year"] == 2018
