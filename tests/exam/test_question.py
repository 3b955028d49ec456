"""A question refuses what could never be asked or scored."""

import dataclasses
import json
from datetime import date

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medllm.errors import DataError
from medllm.exam.question import Question, index, of_years, read_answer, write_answer
from tests.exam.making import question
from tests.refusals import refused


def test_a_key_outside_the_choices_is_refused_by_name():
    with refused("exam.key-outside-choices", "question 1:", "f", "5 choices", kind=DataError):
        question("f")


@pytest.mark.parametrize(
    ("broken", "code", "place"),
    [
        ({"gold": ()}, "exam.no-key", "question 1:"),
        ({"gold": (frozenset(),)}, "exam.no-key", "question 1:"),
        ({"text": " "}, "exam.no-id-or-text", "question 1:"),
        ({"question_id": ""}, "exam.no-id-or-text", "question (no id):"),
    ],
)
def test_a_question_without_id_text_or_key_is_refused(broken, code, place):
    with refused(code, place):
        dataclasses.replace(question(), **broken)


def test_years_leave_out_a_question_without_a_year_where_others_have_one():
    dated, older, undated = (question(year=year) for year in (2022, 2018, None))
    assert of_years([dated, older, undated], [2022]) == [dated]
    assert of_years([dated, older, undated], None) == [dated, older, undated]


def test_an_exam_without_years_is_asked_whole():
    undated = [question(year=None), question(year=None)]
    assert of_years(undated, [2022]) == undated


def test_an_id_that_occurs_twice_is_refused():
    with refused("exam.duplicate-id", "the id 1 "):
        index([question(), question(text="別の問題")])


def test_an_answer_written_and_read_back_is_the_same():
    assert write_answer(frozenset("db")) == "b,d"
    assert read_answer("b,d") == frozenset("bd")
    assert read_answer(None) is None


def test_the_full_text_holds_passage_question_and_choices():
    assert question(context="症例文").full_text.split("\n") == [
        "症例文", "胆汁を作るのはどれか。", "胃", "肝臓", "腎臓", "心臓", "肺",
    ]  # fmt: skip


ROWS = [
    question("b,d", exam_date=date(2022, 2, 5), year=2022, points=3, prohibited=frozenset("ae"), vignette_id="case-1"),
    question("2.1", choices=(), key=("2.1", "02.1"), vignette_text="前の問題の症例文", any_answer_correct=True),
    dataclasses.replace(
        question("b"),
        gold=(frozenset("b"), frozenset("c")),
        breakdown=(0.1, 0.5, 0.2, 0.1, 0.1),
        human_accuracy=0.5,
    ),
]


@pytest.mark.parametrize("asked", ROWS, ids=["letters", "number", "two answers"])
def test_a_question_is_read_back_from_its_row_also_through_parquet_and_json(asked, tmp_path):
    assert Question.from_row(asked.to_row()) == asked
    pq.write_table(pa.Table.from_pylist([asked.to_row()]), tmp_path / "q.parquet")
    (row,) = pq.read_table(tmp_path / "q.parquet").to_pylist()
    assert Question.from_row(row) == asked
    assert Question.from_row(json.loads(json.dumps(asked.to_row(), default=str))) == asked


def test_the_columns_of_the_published_questions_table_stay():
    assert tuple(ROWS[0].to_row()) == (
        "question_id", "benchmark", "text", "choices", "gold", "key", "exam_date", "year", "section", "numeric",
        "points", "required", "image", "anything_right", "category", "human_accuracy", "breakdown", "prohibited",
        "explanation", "group", "context", "lost_context", "language",
    )  # fmt: skip


@pytest.mark.parametrize("column", ["question_id", "benchmark", "text", "gold"])
def test_a_row_without_a_needed_column_is_refused_by_the_columns_name(column):
    row = {name: value for name, value in ROWS[0].to_row().items() if name != column}
    with pytest.raises(KeyError, match=column):
        Question.from_row(row)


def test_an_exam_with_a_year_alone_was_held_by_the_years_last_day():
    dated = question(exam_date=date(2016, 2, 6), year=2016)
    assert [asked.held_by for asked in (dated, question(year=2016), question())] == [
        date(2016, 2, 6),
        date(2016, 12, 31),
        None,
    ]
