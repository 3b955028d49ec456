"""An exam item is seen whatever hides it: markup, escapes, readings, other kana, commentary, noise, other languages."""

import json
import random
import re

import pytest

from medllm.corpus.decontaminate.exam_items import ExamItem, held_out
from medllm.corpus.decontaminate.matcher import ExamIndex, match_in_slices, reveal
from medllm.exam.benchmarks import translations
from tests.corpus.invented import INVENTED

ITEM = ExamItem(
    "own/1",
    "五十八歳の女性。朝のこわばりとカルシウム値の上昇を指摘されて来院した。頸部の超音波検査で腫瘤を認める。"
    "まず測定すべきホルモンはどれか。",
    ("パラトルモン", "カルシトニン", "コルチゾール", "アルドステロン", "プロラクチン"),
)
SHORT = ExamItem("own/2", "気管支喘息でみられるのはどれか。", ("呼気の延長", "血痰", "ばち指", "嗄声", "眼瞼下垂"))
FILLER = [
    ExamItem(f"own/{n}", f"{n}番の欄で誤っているのはどれか。", (f"甲{n}", f"乙{n}", f"丙{n}")) for n in range(3, 60)
]
LONG = "これについては別の章で述べるとおり、経過と検査の値、画像の読み方、治療の進め方を順に学ぶことになっている。" * 3


@pytest.fixture(scope="module")
def own() -> ExamIndex:
    return ExamIndex([ITEM, SHORT, *FILLER])


def seen(index: ExamIndex, text: str, item: ExamItem) -> float:
    return max(
        (one.containment for one in match_in_slices(index, [text])[0][0] if index.items[one.item] == item), default=0.0
    )


@pytest.mark.parametrize("brackets", ["（）", "()", "《》", "〈〉", "［］", "【】"])
def test_readings_behind_kanji_do_not_hide_an_item(own, brackets):
    text = re.sub(r"([一-龥]{2,})", rf"\1{brackets[0]}よみかた{brackets[1]}", ITEM.text)
    assert text != ITEM.text
    assert seen(own, text, ITEM) == 1.0


@pytest.mark.parametrize(
    "hide",
    [
        lambda text: re.sub(r"([一-龥]{2,})", r"<ruby>\1<rp>(</rp><rt>よみ</rt><rp>)</rp></ruby>", text),
        lambda text: re.sub(r"([一-龥]{2,})", r"<b>\1</b>", text),
        lambda text: json.dumps(text),
        lambda text: json.dumps(text).replace("\\", "\\\\"),
        lambda text: "".join(f"&#{ord(one)};" for one in text),
        lambda text: "".join(f"&amp;#x{ord(one):x};" for one in text),
        lambda text: "&nbsp;".join(text),
        lambda text: "".join(chr(ord(one) - 0x60) if "ァ" <= one <= "ヶ" else one for one in text),
        lambda text: "".join(chr(ord(one) + 0x60) if "ぁ" <= one <= "ゖ" else one for one in text),
        lambda text: "**" + text.replace("\n", "** | **") + "**",
        lambda text: text.replace("検査", "檢査").replace("値", "値"),
    ],
    ids=["ruby", "tags", "escapes", "escaped twice", "entities", "entities twice", "blanks", "hiragana", "katakana",
         "bold", "old kanji"],
)  # fmt: skip
def test_markup_escapes_and_other_kana_do_not_hide_an_item(own, hide):
    assert hide(ITEM.text) != ITEM.text
    assert seen(own, hide(ITEM.text), ITEM) >= 0.9


def test_what_is_no_reading_and_no_tag_stays():
    text = "血圧（mmHg）は p<0.05 で上昇し、AST(GOT)は正常。C:\\data の値 5 & 6。"
    assert reveal(text) == text


def test_a_commentary_on_each_option_does_not_hide_a_short_item(own):
    text = SHORT.question + "\n" + "\n".join(f"{one}：{LONG}" for one in SHORT.options)
    assert 0.3 <= seen(own, text, SHORT) < 0.5
    assert seen(own, "、".join(SHORT.options) + LONG * 2 + SHORT.question, SHORT) >= 0.3


def test_a_textbook_that_names_the_options_without_the_question_is_not_flagged(own):
    text = "気管支喘息では呼気の延長を認める。" + LONG + "血痰、ばち指、嗄声、眼瞼下垂は別の病気でみられる。"
    assert seen(own, text, SHORT) == 0.0


def scans_seen(items: list[ExamItem], index: ExamIndex) -> int:
    """How many of the items are seen for themselves in a scan that has one wrong character in twenty."""
    draw = random.Random(5)
    texts = ["".join(draw.choice("日目白木本") if draw.random() < 0.05 else one for one in item.text) for item in items]
    numbers = {item.name: number for number, item in enumerate(index.items)}
    found = zip(items, match_in_slices(index, texts), strict=True)
    return sum(any(one.item == numbers[item.name] for one in flagged) for item, (flagged, _) in found)


RETOLD = ExamItem(
    "own/60",
    "サルコイドーシスについて正しいのはどれか。",
    (
        "若い成人に多い病気である。",
        "乾酪壊死を伴う肉芽腫を作る。",
        "血清カルシウムの値が下がる。",
        "眼にぶどう膜炎を起こす。",
    ),
)
ALIKE = [
    ExamItem(f"own/{n}", f"{n}型の{word}について正しいのはどれか。", (f"子{n}", f"丑{n}", f"寅{n}"))
    for n, word in enumerate(("肺炎", "肝炎", "腎炎", "腸炎", "膵炎", "胃炎", "髄膜炎", "鼻炎", "関節炎", "腹膜炎"), 61)
]


@pytest.fixture(scope="module")
def retold() -> ExamIndex:
    return ExamIndex([RETOLD, *ALIKE, *FILLER])


def test_an_item_whose_question_has_lost_its_only_own_word_is_for_review(retold):
    text = "ギランバレーについて正しいのはどれか。\n" + "\n".join(RETOLD.options)
    assert 0.3 <= seen(retold, LONG + text + LONG, RETOLD) < 0.5


def test_an_item_with_words_replaced_in_question_and_options_is_for_review(retold):
    text = "\n".join(
        ("サルコペニアについて正しいのはどれか。", "高齢の女性に多い病気である。", *RETOLD.options[1:2],
         "血清リンの値が変わらない。", RETOLD.options[3])
    )  # fmt: skip
    assert 0.3 <= seen(retold, LONG + text + LONG, RETOLD) < 0.5


def test_statements_of_the_options_without_any_of_the_question_are_not_flagged(retold):
    assert seen(retold, LONG + "".join(RETOLD.options[1:]) + LONG, RETOLD) == 0.0


def test_a_scan_with_one_wrong_character_in_twenty_is_seen(index, igakuqa):
    chosen = random.Random(5).sample([item for item in igakuqa if item.options], 200)
    assert scans_seen(chosen, index) >= 196


def test_a_scan_of_an_invented_exam_is_seen_too():
    assert scans_seen(INVENTED, ExamIndex(INVENTED)) == 30


def test_the_published_english_of_igakuqa_is_held_out_too(igakuqa_held_out, index, shared_data):
    english = translations("igakuqa", shared_data / "igakuqa")
    assert len(english) == 2000
    texts = ["\n".join((one.text, *one.choices)) for one in english[:400]]
    numbers = {item.name: number for number, item in enumerate(index.items)}
    for one, (flagged, _) in zip(english, match_in_slices(index, texts), strict=False):
        assert any(seen.item == numbers[f"igakuqa/{one.question_id} (en)"] for seen in flagged), one


def test_translations_of_an_own_exam_are_further_items_of_its_questions(tmp_path):
    row = {"question_id": "7", "text": "問いの文。", "choices": ["甲", "乙"], "answer": "a"}
    row |= {"text_en": "Which of these is right?", "choices_en": ["first", "second"]}
    (tmp_path / "exam.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", "utf-8")
    (tmp_path / "translations").mkdir()
    german = {"question_id": "7", "text": "Welche Antwort ist richtig?", "choices": ["erste", "zweite"]}
    (tmp_path / "translations" / "de.jsonl").write_text(json.dumps(german) + "\n", "utf-8")
    items = held_out([("mine", tmp_path)])
    assert [item.name for item in items] == ["mine/7", "mine/7 (en)", "mine/7 (de)"]
    assert items[2].options == ("erste", "zweite")
