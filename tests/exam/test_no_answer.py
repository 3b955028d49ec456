"""A reply that gives no answer is never read as one: empty, refusing, off-topic and undecided replies."""

from pathlib import Path

import pytest

from medllm.exam.extract.answer import parse
from tests.exam.making import question

LINES = (Path(__file__).parent.parent / "golden" / "no_answer.txt").read_text(encoding="utf-8").split("\n")
REPLIES = [line.replace("\\n", "\n").replace("\\\\", "\\") for line in LINES if not line.startswith("# ")]
ASKED = {
    "an unknown question": None,
    "one right choice": question("b"),
    "two right choices": question("b,d"),
    "English choices": question(
        "c", choices=("Aspirin", "Insulin", "Dialysis", "Surgery", "Observation"), language="en"
    ),
}


def test_the_set_is_there_with_empty_refusing_and_off_topic_replies():
    assert len(REPLIES) > 100
    assert "" in REPLIES


@pytest.mark.parametrize("asked", ASKED)
def test_a_reply_without_an_answer_is_never_given_one(asked):
    read = {reply: parsed.answer for reply in REPLIES if (parsed := parse(reply, ASKED[asked])).answer is not None}
    assert read == {}


@pytest.mark.parametrize("finish_reason", ["stop", "length", None])
def test_no_answer_is_a_status_and_not_a_wrong_answer(finish_reason):
    statuses = {parse(reply, finish_reason=finish_reason).status for reply in REPLIES}
    assert statuses <= {"unparsed", "truncated", "loop", "run_on"}


def test_refusals_are_no_numbers_either():
    number = question("12", choices=())
    refusals = [reply for reply in REPLIES if not any(letter.isdigit() for letter in reply)]
    assert len(refusals) > 60
    assert {reply for reply in refusals if parse(reply, number).answer is not None} == set()
