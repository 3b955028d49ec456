"""The official rules do byte for byte what IgakuQA's scorer does; ours forgive spelling, not answers."""

import pytest

from medllm.exam.grading import grade, is_right_officially, picked_prohibited
from medllm.exam.question import Question
from tests.exam.making import question

EITHER = Question(
    question_id="112B30", benchmark="igakuqa", text="どれか。", choices=tuple("アイウエオ"), key=("a or d",),
    gold=(frozenset("a"), frozenset("d")),
)  # fmt: skip
NUMBER = Question(
    question_id="116B50", benchmark="igakuqa", text="求めよ。", choices=(), key=("21",), gold=(frozenset({"2.1"}),),
    numeric=True,
)  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "completion", "official", "normalised"),
    [
        (question("b,e"), "b,e", True, True),
        (question("b,e"), "e,b", True, True),
        (question("b,e"), "b, e", False, True),
        (question("b"), "B", False, True),
        (question("b"), "ｂ", False, True),
        (question("b"), "b\n", False, True),
        (question("b"), "b,b", False, True),
        (question("b"), "", False, False),
        (question("b,e"), "b", False, False),
        (question("b"), "b,e", False, False),
        (EITHER, "a", True, True),
        (EITHER, "d", True, True),
        (EITHER, "a,d", False, False),
        (EITHER, "a or d", True, False),
        (NUMBER, "21", True, True),
        (NUMBER, "2.1", False, True),
        (question(any_answer_correct=True), "e", True, True),
        (question(any_answer_correct=True), "", True, True),
    ],
)
def test_rules_differ_exactly_here(asked, completion, official, normalised):
    assert is_right_officially(asked, completion) is official
    assert grade(asked, completion, model="m", rules="official").correct is official
    assert grade(asked, completion, model="m", rules="normalised").correct is normalised


@pytest.mark.parametrize(
    ("completion", "finish_reason", "status"),
    [
        ("<think>まず b を考える。", "length", "thinking"),
        ("<think>まず b を考える。", None, "thinking"),
        ("<think>よし。</think>胆汁は肝臓で作られるが、", "length", "truncated"),
        ("", "too_long", "too_long"),
        ("", "refused", "refused"),
        ("申し訳ありませんが、医療に関する質問にはお答えできません。", "stop", "refused"),
        ("I'm sorry, but I can't help with medical questions.", "stop", "refused"),
        ("I cannot provide medical advice.", "stop", "refused"),
        ("わかりません。", "stop", "unparsed"),
        ("この薬は提供できません。しかし答え：b", "stop", "answered"),
        ("答え：b", "stop", "answered"),
    ],
)
def test_what_became_of_a_reply_is_a_state_of_its_own(completion, finish_reason, status):
    made = grade(question("b"), completion, model="m", finish_reason=finish_reason)
    assert (made.status, made.correct) == (status, status == "answered")
    assert made.choices == 5


def test_a_record_carries_what_reports_need():
    asked = question(
        "b",
        year=2018,
        section="B",
        required=True,
        category="肝臓",
        points=3,
        vignette_id="g",
        prohibited=frozenset("e"),
    )
    made = grade(
        asked, "答え:b,e", model="m", prompt="explain", finish_reason="stop", seed=7, shots=3, template="paper"
    )
    assert (made.year, made.section, made.required, made.category, made.group) == (2018, "B", True, "肝臓", "g")
    assert (made.points, made.points_total, made.status, made.answer, made.gold) == (
        0.0,
        3.0,
        "wrong_count",
        "b,e",
        "b",
    )
    assert (made.seed, made.shots, made.template, made.prohibited) == (7, 3, "paper", "e")


def test_prohibited_choices_are_those_among_the_letters_given():
    asked = question("b", prohibited=frozenset("de"))
    assert picked_prohibited(asked, "b,d,e") == "d,e"
    assert picked_prohibited(asked, "b") is None
    assert picked_prohibited(asked, None) is None
