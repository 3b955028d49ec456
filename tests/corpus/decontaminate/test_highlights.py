"""The marks stand where the item stands, whatever its spelling, and show nothing else."""

from medllm.corpus.decontaminate.exam_items import Item
from medllm.corpus.decontaminate.highlights import ROOM, excerpt, spans

QUESTION = (
    "四十五歳の男性。半年前からの口渇と多尿を主訴に来院した。体重も減った。まず行うべき検査として適切なのはどれか。"
)
OPTIONS = ("随時血糖の測定", "尿の比重の測定", "腹部の超音波検査", "頭部の磁気共鳴画像")
ITEM = Item("own/1", QUESTION, OPTIONS)
AROUND = "この章では外来でよく見る訴えを順に取りあげ、どのように話を聞くかを述べる。"


def test_the_marked_stretches_are_the_item():
    text = f"{AROUND}{QUESTION}{AROUND}"
    assert [text[begin:end] for begin, end in spans(text, ITEM)] == [QUESTION.rstrip("。")]


def test_line_breaks_and_other_widths_inside_the_item_are_marked_with_it():
    broken = "体重は五キロ減った。 \n　まず行うべき検査として適切\nなのはﾄﾞﾚか"
    item = Item("own/2", "体重は五キロ減った。まず行うべき検査として適切なのはドレか。その際の注意はどれか。")
    text = f"{AROUND}{broken}。{AROUND}"
    ((begin, end),) = spans(text, item)
    assert text[begin:end] == broken


def test_a_text_without_the_item_has_no_marks():
    assert spans(AROUND * 5, ITEM) == []


def test_the_excerpt_is_about_the_match_and_loses_no_character_of_it():
    text = AROUND * 200 + QUESTION + "".join(OPTIONS) + AROUND * 200
    shown = excerpt(text, ITEM)
    assert "".join(piece.text for piece in shown) in text
    assert sum(len(piece.text) for piece in shown) <= ROOM
    assert QUESTION.rstrip("。") in [piece.text for piece in shown if piece.marked]
