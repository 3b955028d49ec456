"""Answers are read in the many ways models write them, and every reply without one says why."""

import pytest

from medllm.exam.extract.answer import is_right, parse
from medllm.exam.question import Question
from tests.exam.making import question

READ = {
    "bare letter": ("b", "b"),
    "original's list": ("b,e", "b,e"),
    "list with spaces": (" b, e", "b,e"),
    "out of order": ("e,b", "b,e"),
    "full width": ("ｂ、ｅ", "b,e"),
    "circled digit": ("②", "b"),
    "marked circled digits": ("答え: ②と⑤", "b,e"),
    "to": ("正解はｂとｄ", "b,d"),
    "desu": ("正答は c と e です。", "c,e"),
    "and in Japanese": ("答え: b および d", "b,d"),
    "middle dot": ("解答：ａ・ｃ", "a,c"),
    "slash": ("解答：ａ／ｃ", "a,c"),
    "spaces only": ("答え: a c", "a,c"),
    "run together": ("答え:bd", "b,d"),
    "run together, upper": ("答え: BD", "b,d"),
    "brackets": ("【回答】a", "a"),
    "bold brackets": ("**【回答】** **b**", "b"),
    "heading": ("### 答え\nb", "b"),
    "next line": ("答えは\n\nc", "c"),
    "quoted": ("答えは「b」です", "b"),
    "arrow": ("答え ⇒ c", "c"),
    "final": ("最終回答: **e**", "e"),
    "choice word": ("回答: 選択肢b", "b"),
    "with its text": ("答え: b（硫化水素中毒）、d（酸素欠乏）", "b,d"),
    "labelled text": ("答え: ｂ．硫化水素中毒", "b"),
    "number of choice": ("答え: 2", "b"),
    "numbers of choices": ("答え: 2,4", "b,d"),
    "json": ('{"answer": "b"}', "b"),
    "json list": ('{"answer": ["b","d"], "explanation":"a is wrong"}', "b,d"),
    "json in a fence": ('```json\n{"回答": "b"}\n```', "b"),
    "boxed": (r"So \boxed{b}", "b"),
    "boxed text": (r"$\boxed{\text{B, D}}$", "b,d"),
    "English": ("The answer is (B).", "b"),
    "English and": ("Answer: b and d", "b,d"),
    "English list": ("Final answer: B, C, and E", "b,c,e"),
    "English bold": ("**Answer:** B", "b"),
    "English choice": ("The best answer is option D.", "d"),
    "English choosing": ("I choose (C).", "c"),
    "English conclusion": ("Therefore, B.", "b"),
    "Japanese conclusion": ("したがって、bが正しい。", "b"),
    "two concluded": ("よってbとdが適切である。", "b,d"),
    "chosen": ("選択肢bを選択する", "b"),
    "not this but that": ("正解はaではなくcである", "c"),
    "after the explanation": ("a 誤り。b 正しい。\n答え: b", "b"),
    "last of two": ("答え: a かと思われたが、答え: b", "b"),
    "before the explanation": ("b\n\n解説: aは誤りである。", "b"),
    "last line": ("解説：aは誤り。bは正しい。\nb", "b"),
    "thought hidden": ("<think>maybe a. answer: a</think>答え: c", "c"),
    "said three times": ("b\nb\nb", "b"),
    "because": ("Answer is C, because D is wrong.", "c"),
    "as": ("Answer: B, as A is wrong.", "b"),
    "an article behind": ("Answer: B, a rare disease.", "b"),
    "e.g. behind": ("答え: c e.g. 腎炎", "c"),
    "comment behind": ("a and c (① is a nasal speculum)", "a,c"),
}


@pytest.mark.parametrize("name", READ)
def test_an_answer_is_read(name):
    completion, answer = READ[name]
    parsed = parse(completion)
    assert parsed.answer == answer
    assert parsed.status == "answered"
    assert parsed.extraction_rule is not None


RUN_ON = {
    "question": "答え: d\n\nQuestion: foo\nAnswer: a",
    "original's question": "d\n問題: 次のうち\na: p\nb: q\nc: r\n答え: c",
    "options under a bare answer": "d\n45歳の男性。\na: p\nb: q\nc: r\nd: s\n答え:c",
    "turn": "答え: d<|im_end|>\n<|im_start|>user\n答え: a",
    "user": "答え: d\nUser: 次の問題は?\nAssistant: 答え: b",
    "stop token": "答え: d</s>答え: b",
}


@pytest.mark.parametrize("name", RUN_ON)
def test_reading_stops_at_an_invented_next_question(name):
    parsed = parse(RUN_ON[name])
    assert (parsed.answer, parsed.run_on, parsed.status) == ("d", True, "answered")


def test_a_stop_token_at_the_end_is_no_running_on():
    assert not parse("答え: d<|im_end|>\n").run_on


def test_saying_the_question_again_is_no_running_on():
    asked = question("b", text="60歳の女性。黄疸を訴える。この時点で行うべき対応はどれか。")
    reply = "まず所見を整理する。\n\n### 問題：この時点で行うべき対応は？\n\n検討する。\n\n【回答】b"
    parsed = parse(reply, asked)
    assert (parsed.answer, parsed.run_on) == ("b", False)


@pytest.mark.parametrize(
    ("completion", "finish_reason", "status"),
    [
        ("", None, "unparsed"),
        ("画像がないため回答できません。", "stop", "unparsed"),
        ("この症例では、まず", "length", "truncated"),
        ("<think>まだ考えている。答えはaか", None, "truncated"),
        ("よって、" + "ビタミンの欠乏である。" * 30, "length", "loop"),
        ("よって、" + "．" * 300, "repetition", "loop"),
        ("わからない。\n問題: 次はどれか。", "stop", "run_on"),
    ],
)
def test_a_reply_without_an_answer_says_why(completion, finish_reason, status):
    parsed = parse(completion, finish_reason=finish_reason)
    assert (parsed.answer, parsed.extraction_rule, parsed.status) == (None, None, status)


def test_a_wrong_number_of_choices_is_a_status_of_its_own():
    assert parse("b,d", question("b")).status == "wrong_count"
    assert parse("b", question("b,d")).status == "wrong_count"
    assert parse("b,d", question("b,d")).status == "answered"


def test_the_words_of_a_choice_stand_for_its_letter():
    asked = question("b", choices=("yes", "no", "maybe"))
    assert parse("no", asked).answer == "b"
    assert parse("Answer: Maybe.", asked).answer == "c"
    assert parse("Answer: yes, because the trial was large.", asked).answer == "a"
    assert parse("There is no evidence.", asked).answer is None
    assert parse("答え: 肝臓", question("b")).answer == "b"


def test_a_choice_that_is_itself_a_number_is_not_taken_for_its_place():
    assert parse("答え: 2", question("b", choices=("0", "1", "2", "3"))).answer == "c"


def test_letters_the_question_does_not_have_are_no_answer():
    assert parse("答え: e", question("b", choices=("ア", "イ", "ウ", "エ"))).answer is None
    assert parse("答え: g", question("g", choices=tuple("アイウエオカキク"))).answer == "g"


@pytest.mark.parametrize(
    "reply", ["A: \nA: \nA: ", "a:\na:", "B: \nB: ", "A:A:A:A:", "Answer: \nA: \nA:", "Ａ：\nＡ："]
)
def test_a_label_that_is_repeated_with_nothing_behind_it_is_no_answer(reply):
    assert parse(reply).answer is None


def test_an_answer_before_repeated_empty_labels_is_read():
    assert parse("答え: b\nA: \nA: ").answer == "b"
    assert parse("A: b\nA: b").answer == "b"


def test_words_behind_a_bare_letter_must_be_the_choice_s_own():
    asked = question("b", choices=("C. difficile", "硫化水素中毒", "ペニシリン", "酸素", "水"))
    assert parse("b: 硫化水素中毒", asked).answer == "b"
    assert parse("c (penicillin)", asked).answer == "c", "the same in another script"
    assert parse("c: 酸素", asked).answer is None
    assert parse("C. difficile infection", asked).answer is None
    assert parse("c (it is not possible to answer without the picture)", asked).answer is None


NUMBERS = {
    "plain": ("答え: 2.1", "2.1"),
    "unit": ("97Torr", "97"),
    "thousands": ("1,130", "1130"),
    "about": ("答え：約28です", "28"),
    "full width": ("答えは２．１である", "2.1"),
    "cells": ("①2 ②1", "21"),
    "filled cells": ("答え：①=9、②=7", "97"),
    "first cell's mark": ("解答: ①26torr", "26"),
    "named": ("解答:総再生産率は1.2です。", "1.2"),
    "concluded": ("よって、総再生産率は1.37となる。", "1.37"),
    "boxed": (r"\boxed{315}", "315"),
    "bracket and unit": ("【回答】1.200 g/日", "1.200"),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_is_read(name):
    completion, number = NUMBERS[name]
    assert parse(completion, question("1", choices=())).answer == number


@pytest.mark.parametrize(
    ("gold", "right", "wrong"),
    [
        (("2.1",), ["2.1", "2.10", "21"], ["210", "2.11", "12", "-2.1"]),
        (("0.4",), ["0.4", "0.40", ".4", "04"], ["4", "40"]),
        (("10.0",), ["10", "10.0", "100"], ["1.0", "1000"]),
        (("130", "1130"), ["130", "1130", "1130.0"], ["113"]),
    ],
)
def test_numbers_count_by_value_or_by_the_digits_of_the_cells(gold, right, wrong):
    asked = Question(
        question_id="n", benchmark="invented", text="求めよ。", choices=(), numeric=True, key=gold,
        gold=tuple(frozenset({one}) for one in gold),
    )  # fmt: skip
    assert all(is_right(asked, answer) for answer in right)
    assert not any(is_right(asked, answer) for answer in [*wrong, None, "x"])


def test_any_accepted_answer_is_right_and_an_excused_question_always():
    either = Question(
        question_id="e", benchmark="invented", text="どれか。", choices=tuple("アイウエオ"), key=("a or d",),
        gold=(frozenset("a"), frozenset("d")),
    )  # fmt: skip
    assert [is_right(either, answer) for answer in ("a", "d", "a,d", "b", None)] == [True, True, False, False, False]
    assert is_right(question(any_answer_correct=True), "e")
    assert is_right(question(any_answer_correct=True), None)
