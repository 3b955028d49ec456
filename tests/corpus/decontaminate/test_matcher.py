"""Every IgakuQA question, however it is printed, is found; no pharmacist's question is taken for one."""

import random
import unicodedata

import pytest

from medllm.corpus.decontaminate.exam_items import ExamItem
from medllm.corpus.decontaminate.matcher import ExamIndex, match_in_slices, verdict
from tests.corpus.invented import INVENTED
from tests.refusals import refused

FILLER = (
    "外来では血圧と体重を毎回測り、食事と運動の記録を一緒に見直す。薬は一包化し、飲み忘れがあれば次の受診で相談する。"
    "検査の結果は本人に渡し、家族にも説明してよいかをそのつど確かめている。季節の変わり目には水分と睡眠に気を配る。"
)


def verbatim(item: ExamItem, draw: random.Random) -> str:
    return item.text


def half_width(item: ExamItem, draw: random.Random) -> str:
    """Kana in half width and letters in full width, as old systems and word processors write them."""
    table = {}
    for code in range(0xFF66, 0xFF9E):
        table[ord(unicodedata.normalize("NFKC", chr(code)))] = chr(code)
    wide = {code: chr(code + 0xFEE0) for code in range(0x21, 0x7F)}
    decomposed = "".join(
        unicodedata.normalize("NFD", one).replace("\u3099", "ﾞ").replace("\u309a", "ﾟ") if "ァ" <= one <= "ヶ" else one
        for one in item.text
    )
    return decomposed.translate({**wide, **table})


def wrapped(item: ExamItem, draw: random.Random) -> str:
    """Broken every 17 characters, as a page of two columns is."""
    text = item.text.replace("\n", "")
    return "　\n".join(text[at : at + 17] for at in range(0, len(text), 17))


def shuffled(item: ExamItem, draw: random.Random) -> str:
    options = list(item.options)
    draw.shuffle(options)
    return "\n".join((item.question, *(f"{number}) {option}" for number, option in enumerate(options, 1))))


def inside_a_page(item: ExamItem, draw: random.Random) -> str:
    return FILLER * draw.randint(3, 30) + shuffled(item, draw) + FILLER * draw.randint(3, 30)


PRINTED = [verbatim, half_width, wrapped, shuffled, inside_a_page]


def missed(printed, items: list[ExamItem], index: ExamIndex) -> list[str]:
    """Names of the items that are not dropped when each is a text of its own, printed in this way."""
    draw = random.Random(7)
    texts = [printed(item, draw) for item in items]
    numbers = {item.name: number for number, item in enumerate(index.items)}
    caught = set()
    for begin in range(0, len(texts), 500):
        for item, (flagged, _) in zip(items[begin:], match_in_slices(index, texts[begin : begin + 500]), strict=False):
            seen = [one.containment for one in flagged if one.item == numbers[item.name]]
            caught |= {item.name for containment in seen if verdict(containment) == "drop"}
    return [item.name for item in items if item.name not in caught]


@pytest.mark.parametrize(
    "printed", [verbatim, *(pytest.param(one, marks=pytest.mark.long) for one in PRINTED if one is not verbatim)]
)
def test_all_2000_planted_questions_are_dropped(printed, index, igakuqa):
    assert len(igakuqa) == 2000
    assert missed(printed, igakuqa, index) == []


@pytest.mark.parametrize("printed", PRINTED)
def test_all_planted_questions_of_an_invented_exam_are_dropped(printed):
    assert len(INVENTED) == 30
    assert missed(printed, INVENTED, ExamIndex(INVENTED)) == []


def test_the_half_of_an_invented_exam_that_is_not_held_out_is_not_flagged():
    index, others = ExamIndex(INVENTED[::2]), [item.text for item in INVENTED[1::2]]
    assert len(others) == 15
    assert index.match(others).flagged == []


def test_no_pharmacist_question_is_flagged(index, yakugakuqa):
    parts = [yakugakuqa[begin : begin + 500] for begin in range(0, len(yakugakuqa), 500)]
    flagged = [one for part in parts for one in index.match(part).flagged]
    assert len(yakugakuqa) == 4485
    assert flagged == []


def test_between_years_only_reused_and_reworded_items_are_seen(index, igakuqa):
    seen: dict[str, float] = {}
    for one in index.match([item.text for item in igakuqa]).flagged:
        mine, theirs = igakuqa[one.document].name, index.items[one.item].name
        if mine[:11] != theirs[:11]:
            seen[theirs] = max(seen.get(theirs, 0.0), one.containment)
    # 113E2 was asked again as 116B10; the others are the same case told in other words.
    assert {name for name, containment in seen.items() if containment >= 0.5} == {"igakuqa/113E2", "igakuqa/116B10"}
    assert len(seen) <= 25


def test_an_item_scattered_over_a_textbook_is_not_its_leak(index, igakuqa):
    """Stock phrases of one question on pages far apart are no question; in one place they are."""
    item = max(igakuqa, key=lambda one: len(one.question) if not one.alphabetic else 0)
    pieces = [item.question[at : at + 40] for at in range(0, len(item.question), 40)]
    scattered = (FILLER * 60).join(pieces)
    assert [one for one in match_in_slices(index, [scattered])[0][0] if index.items[one.item].name == item.name] == []
    together = match_in_slices(index, [FILLER.join(pieces[:1]) + "".join(pieces)])[0][0]
    assert item.name in {index.items[one.item].name for one in together}


def test_a_question_without_its_options_and_options_without_their_question_are_seen():
    question = (
        "六十四歳の女性が三か月前からの息切れと下腿の浮腫を主訴に来院した。まず行うべき検査として適切なのはどれか。"
    )
    options = tuple(
        f"{name}を毎朝の食前に内服していることを家族とともに確かめて記録に残す。"
        for name in ("利尿薬", "降圧薬", "抗凝固薬", "強心薬")
    )
    index = ExamIndex([ExamItem("own/1", question, options)])
    asked, offered = match_in_slices(index, [FILLER + question + FILLER, FILLER + "".join(reversed(options))])
    assert [(one.part, one.containment) for one in asked[0]] == [("question", 1.0)]
    assert [one.part for one in offered[0]] == ["options"]
    assert offered[0][0].containment > 0.9


def test_an_item_with_nothing_to_search_for_is_named_and_not_called_clean():
    index = ExamIndex([ExamItem("own/1", "どれか。", ("肺", "心"))])
    assert index.unsearchable == ["own/1"]


def test_nothing_is_clean_against_no_exam():
    with refused("corpus.no-exam-items"):
        ExamIndex([])


def test_a_long_text_is_seen_whole_slice_by_slice(index, igakuqa):
    item = igakuqa[1000]
    filler = FILLER * 20_000
    long = filler + item.text + filler[:500_000]
    assert len(long) > 2_000_000
    flagged, _ = match_in_slices(index, [long])[0]
    assert [index.items[one.item].name for one in flagged] == [item.name]
