"""The marks stand where the item stands, whatever its spelling, and show nothing else."""

import html
import re

import pytest

from medllm.corpus.decontaminate.audit import EXCERPT_CHARACTERS, AuditRequest, audit, excerpt, spans, write_page
from medllm.corpus.decontaminate.exam_items import ExamItem
from medllm.corpus.decontaminate.matcher import reveal, reveal_places

QUESTION = (
    "四十五歳の男性。半年前からの口渇と多尿を主訴に来院した。体重も減った。まず行うべき検査として適切なのはどれか。"
)
OPTIONS = ("随時血糖の測定", "尿の比重の測定", "腹部の超音波検査", "頭部の磁気共鳴画像")
ITEM = ExamItem("own/1", QUESTION, OPTIONS)
AROUND = "この章では外来でよく見る訴えを順に取りあげ、どのように話を聞くかを述べる。"


def test_the_marked_stretches_are_the_item():
    text = f"{AROUND}{QUESTION}{AROUND}"
    assert [text[begin:end] for begin, end in spans(text, ITEM)] == [QUESTION.rstrip("。")]


def test_line_breaks_and_other_widths_inside_the_item_are_marked_with_it():
    broken = "体重は五キロ減った。 \n　まず行うべき検査として適切\nなのはﾄﾞﾚか"
    item = ExamItem("own/2", "体重は五キロ減った。まず行うべき検査として適切なのはドレか。その際の注意はどれか。")
    text = f"{AROUND}{broken}。{AROUND}"
    ((begin, end),) = spans(text, item)
    assert text[begin:end] == broken


HIDDEN = {
    "tags": lambda one: f"<b class='x'>{one}</b>",
    "readings": lambda one: f"{one}（よみ）" if "一" <= one <= "龥" else one,
    "ruby": lambda one: f"<ruby>{one}<rt>よみ</rt></ruby>" if "一" <= one <= "龥" else one,
    "escapes": lambda one: f"\\u{ord(one):04x}",
    "entities": lambda one: f"&#{ord(one)};",
    "entities twice": lambda one: f"&amp;#x{ord(one):x};",
}


@pytest.mark.parametrize("hide", HIDDEN.values(), ids=HIDDEN.keys())
def test_a_hidden_item_is_marked_at_its_place_in_the_text_as_it_is_written(hide):
    hidden = "".join(map(hide, QUESTION.rstrip("。")))
    text = f"{AROUND}{hidden}。{AROUND}"
    ((begin, end),) = spans(text, ITEM)
    assert hidden.endswith(text[len(AROUND) + len(hidden) - 3 : end])
    # Only a tag or reading at an edge, which no character of the item is, may stay outside.
    assert reveal(text[begin:end]) == QUESTION.rstrip("。")
    shown = excerpt(text, ITEM)
    assert "".join(piece.text for piece in shown) in text
    assert any(piece.marked for piece in shown)


@pytest.mark.parametrize(
    "text",
    [QUESTION, r"\ud83d\ude00 \ud83d \u3042\n", "<b>&lt;&amp;lt;&nbsp</b>", "心（しん）<!-- x -->&#x1F600;", "", "\\"],
)
def test_the_places_are_those_of_the_text_that_the_audit_compares(text):
    shown, begins, ends = reveal_places(text)
    assert shown == reveal(text)
    assert len(begins) == len(ends) == len(shown)
    assert all(reveal(text[b:e]) == one for one, b, e in zip(shown, begins, ends, strict=True) if one not in "<&")


def test_a_hostile_item_behind_entities_is_marked_and_stays_harmless_in_the_page(tmp_path):
    evil = "<script>alert(1)</script>" + "".join(f"&#{ord(one)};" for one in QUESTION) + "<img src=x onerror=alert(2)>"
    report = audit([("evil", evil), ("<b>name</b>", evil)], AuditRequest((ITEM,)))
    write_page(report, "<script>title</script>", tmp_path / "audit.html")
    page = (tmp_path / "audit.html").read_text("utf-8")
    assert "<script" not in page and "<img" not in page and "<b>name" not in page
    assert re.search(r"<mark>(&amp;#\d+;){40,}</mark>", page)
    assert html.unescape(re.search(r"<mark>(.*?)</mark>", page)[1]) in evil


def test_a_text_without_the_item_has_no_marks():
    assert spans(AROUND * 5, ITEM) == []


def test_the_excerpt_is_about_the_match_and_loses_no_character_of_it():
    text = AROUND * 200 + QUESTION + "".join(OPTIONS) + AROUND * 200
    shown = excerpt(text, ITEM)
    assert "".join(piece.text for piece in shown) in text
    assert sum(len(piece.text) for piece in shown) <= EXCERPT_CHARACTERS
    assert QUESTION.rstrip("。") in [piece.text for piece in shown if piece.marked]
