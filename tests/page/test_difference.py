"""Two replies beside each other: aligned sentences, marked words, the line where they part, inert text."""

import re
import time
from dataclasses import replace

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from medllm.exam.extract.answer import answer_at
from medllm.exam.extract.completion import sentences
from medllm.exam.question import Question
from medllm.page.compare_tab import picks
from medllm.page.difference import FURTHEST, aligned, difference
from medllm.page.html import words
from medllm.page.routes import routes
from tests.page.simulated import HOSTILE

QUESTION = Question(
    question_id="1",
    benchmark="kakuu",
    text="治療は。",
    choices=("硝酸薬", "利尿薬", "輸液"),
    gold=(frozenset("c"),),
    key=("c",),
)


@pytest.fixture
def pair(results):
    """Two recorded explanations of one question."""
    key = results.keys[0]
    found = [results.record(key, model, "explain") for model in ("base", "final")]
    return lambda one, two: [
        replace(record, completion=text, answer=answer)
        for record, (text, answer) in zip(found, (one, two), strict=True)
    ]


def marks(html: str) -> list[str]:
    return re.findall(r"<mark>(.*?)</mark>", html)


def test_replies_part_at_the_first_sentence_that_differs_and_only_its_differing_words_are_marked(pair):
    one, two = pair(
        ("下壁梗塞である。前負荷を減らす硝酸薬を使う。答え：a", "a"),
        ("下壁梗塞である。前負荷を保つ輸液を使う。答え：c", "c"),
    )
    html = difference(QUESTION, one, two)
    before, after = html.split(words()["difference_parts"]["ja"])
    assert "下壁梗塞である。" in before and marks(before) == []
    assert marks(after) == ["減らす硝酸薬", "保つ輸液", "a", "c"]
    assert after.count("class=read") == 2, "each answer's sentence"


def test_equal_replies_part_nowhere_and_state_so(pair):
    html = difference(QUESTION, *pair(("発熱。答え：a", "a"), ("発熱。\n答え：a", "a")))
    assert words()["difference_none"]["ja"] in html
    assert words()["difference_parts"]["ja"] not in html
    assert marks(html) == []


def test_a_sentence_without_counterpart_is_beside_an_empty_cell():
    rows = aligned(["甲である。", "乙である。"], ["甲である。", "丙を疑う理由はない。", "乙である。"])
    assert [(row.left, row.right, row.equal) for row in rows] == [
        ("甲である。", "甲である。", True),
        (None, "<mark>丙を疑う理由はない。</mark>", False),
        ("乙である。", "乙である。", True),
    ]


def test_alike_sentences_are_beside_each_other_whatever_is_between_and_marks_of_form_are_no_words():
    left = ["前置きである。", "**右下肢の腱反射は亢進している。**", "病変は右の脊髄にある。"]
    right = ["- 右下肢の腱反射が亢進する。", "経過は長い。", "予後は悪い。", "よって病変は右の脊髄にある。"]
    rows = aligned(left, right)
    assert [row.places for row in rows] == [(0, None), (1, 0), (None, 1), (None, 2), (2, 3)]
    assert "**" not in rows[1].left and rows[1].right.startswith("<mark>・</mark>右下肢の腱反射")
    assert rows[-1].right == "<mark>よって</mark>病変は右の脊髄にある。"
    assert aligned(["**肺炎**。"], ["肺炎。"])[0].equal, "only its form differs"


@pytest.mark.parametrize(
    ("text", "answer", "place"),
    [
        ("a を疑う。しかし違う。答え：c", "c", 2),
        ("答え：a。見直す。答え：c。以上です。", "c", 2),
        ("わからない。", None, None),
        ("答え：c。" + "以上です。" * FURTHEST, "c", None),
    ],
)
def test_the_sentence_from_which_the_answer_was_read_is_the_last_marked_one(text, answer, place):
    assert answer_at(sentences(text), answer, QUESTION, within=FURTHEST) == place


def test_thinking_is_left_out_and_hostile_text_stays_text(pair):
    html = difference(QUESTION, *pair((f"<think>秘密。</think>{HOSTILE}。答え：a", "a"), ("答え：c", "c")))
    assert "秘密" not in html
    assert not [part for part in ("<img", "<script", "${", "{{", "`") if part in html]


@pytest.mark.parametrize("text", ["あ" * 100_000, "一文。" * 3_000, "語 " * 9_000, "漢a1 " * 4_000 + "。"])
def test_a_long_reply_takes_no_long_time(pair, text):
    began = time.monotonic()
    html = difference(QUESTION, *pair((text, "a"), (text[:-9] + "違う。", "c")))
    assert time.monotonic() - began < 5
    assert len(html) < 400_000


def test_the_address_gives_the_table_of_two_recorded_replies_and_nothing_for_others(page):
    client = TestClient(Starlette(routes=routes(page)))
    key = page.results.keys[0]
    found = client.get("/medllm/difference", params={"q": key, "a": "explain base", "b": "plain final"})
    assert found.status_code == 200
    assert found.headers["content-security-policy"] == "default-src 'none'"
    assert "base" in found.text and "final" in found.text
    for wrong in ({"q": "x"}, {"a": "explain unknown"}, {"b": "sing base"}, {"b": ""}):
        asked = {"q": key, "a": "explain base", "b": "plain final"} | wrong
        assert client.get("/medllm/difference", params=asked).status_code == 404


def test_the_models_that_chose_an_answer_are_named_beside_it(page):
    key = next(key for key in page.results.keys if page.results.record(key, "base", "plain").answer)
    replies = page.results.replies(key)
    found = picks(replies)
    for (model, prompt), record in replies.items():
        for letter in (record.answer or "").split(","):
            assert not letter or re.search(f'class="{prompt}">.*?{model}', found[letter])
    assert any(found[letter] for letter in "abcde" if letter in found)
