"""A question refuses what could never be asked or scored."""

import dataclasses

import pytest

from medllm.errors import DataError
from medllm.exam.question import index, read_answer, write_answer
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
