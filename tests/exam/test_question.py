"""A question refuses what could never be asked or scored."""

import dataclasses

import pytest

from medllm.errors import DataError
from medllm.exam.question import index, read_answer, write_answer
from tests.exam.making import question


def test_a_key_outside_the_choices_is_refused_by_name():
    with pytest.raises(DataError, match=r"question 1: the key names f but there are 5 choices"):
        question("f")


@pytest.mark.parametrize("broken", [{"gold": ()}, {"gold": (frozenset(),)}, {"text": " "}, {"question_id": ""}])
def test_a_question_without_id_text_or_key_is_refused(broken):
    with pytest.raises(DataError, match="has no"):
        dataclasses.replace(question(), **broken)


def test_an_id_that_occurs_twice_is_refused():
    with pytest.raises(DataError, match="the id 1 occurs twice"):
        index([question(), question(text="別の問題")])


def test_an_answer_written_and_read_back_is_the_same():
    assert write_answer(frozenset("db")) == "b,d"
    assert read_answer("b,d") == frozenset("bd")
    assert read_answer(None) is None


def test_the_full_text_holds_passage_question_and_choices():
    assert question(context="症例文").full_text.split("\n") == [
        "症例文", "胆汁を作るのはどれか。", "胃", "肝臓", "腎臓", "心臓", "肺",
    ]  # fmt: skip
