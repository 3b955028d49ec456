"""Spelling becomes one where that is safe, real medical text stays, and each dropped text has its reason."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medllm.corpus.cleaning import (
    _LOOSE,
    FilterLimits,
    _composed,
    drop_reason,
    normalise,
    repetition,
    without_boilerplate,
)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("がん", "がん"),
        ("か\u3099ん", "がん"),
        ("ｶﾞﾝ・ﾊﾟﾘ", "ガン・パリ"),
        ("１２．５ｍｇ", "12.5mg"),
        ("１２，０００個", "12,000個"),
        ("12.5 mg", "12.5 mg"),
        ("である．また，これは", "である．また，これは"),
        ("10⁶個、H₂O、½錠、①②", "10⁶個、H₂O、½錠、①②"),
        ("5㎡、3㎎、1㍑", "5㎡、3mg、1リットル"),
        ("３７．５℃", "37.5°C"),
        ("３～５日", "3〜5日"),
        ("ⅡＡ期", "IIA期"),
        ("（ＣＴ）", "（CT）"),
        ("発\u200b熱\ufeff", "発熱"),
        ("一　二\u00a0三", "一 二 三"),
        ("一行 \r\n\r\n\r\n 二行\n三行", "一行\n\n二行\n三行"),
        ("終わり\x00\x07。", "終わり。"),
        ("一日量は7\x0b14日間", "一日量は7\n14日間"),
        ("脈拍 88\x0c60", "脈拍 88\n60"),
        ("1\x1c2\x1d3\x1e4\x855\u20286\u20297", "1\n2\n3\n4\n5\n6\n7"),
        ("3\x0120", "3 20"),
        ("かﾞんとハﾟッチ", "がんとパッチ"),
        ("ｶ゛ﾝ、か゛ん、あﾞ、ﾞ", "ガン、がん、あ゛、゛"),
        ("⻑期の⻭周病、⽣⺟", "長期の歯周病、生母"),
        ("葛\U000e0100城", "葛城"),
    ],
)
def test_a_text_is_spelt_in_one_way_and_means_the_same(written, meant):
    assert normalise(written) == meant


@given(st.text(st.characters(codec="utf-8"), max_size=80))
def test_a_second_time_changes_nothing(text):
    once = normalise(text)
    assert normalise(once) == once


@given(st.text(st.sampled_from("かハｶﾊうヴアあー\u200b\x00\x0b1a ﾞﾟ゛゜\u3099\u309a⻑\n"), max_size=12))
def test_a_second_time_changes_nothing_of_kana_and_their_marks(text):
    once = normalise(text)
    assert normalise(once) == once


@given(st.text(st.sampled_from("0123456789.,×^⁰¹²³₀₁₂½¼mgμL%がぎぐげごぱぴぷぺぽ"), max_size=40))
def test_no_number_and_no_voiced_kana_is_changed(text):
    assert normalise(text) == unicodedata.normalize("NFC", text)


@given(st.text(st.sampled_from("aAがかはヘ゛\u3099\u309a\u0301\u0323Å\u212b각\u1100\u1161\u11a8⼤①5。\n"), max_size=30))
def test_only_what_may_change_is_composed_and_it_is_as_if_all_were(text):
    assert _composed(text) == unicodedata.normalize("NFC", text)


def test_no_character_that_a_text_is_cut_after_composes_with_one_before_it():
    seconds = {
        int(code, 16)
        for character in map(chr, range(0x110000))
        if (parts := unicodedata.decomposition(character)) and not parts.startswith("<")
        for code in parts.split()[1:]
    }
    safe = [code for code in range(0x10000) if not _LOOSE.match(chr(code))]
    assert len(safe) > 25_000
    assert not [code for code in safe if code in seconds or unicodedata.combining(chr(code))]
    assert all(unicodedata.is_normalized("NFC", chr(code)) for code in safe)


LIMITS = FilterLimits(min_japanese_share=0.3)
GOOD = (
    "心不全の治療では、まず塩分と水分の摂りすぎを避けることを本人と家族に伝える。利尿薬を始めたあとは体重を毎朝測り、"
    "二日で二キロ以上増えたら早めに受診するよう勧めている。息切れや足のむくみが強いときには入院して酸素と点滴を用いる。"
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GOOD, None),
        ("短い文である。", "short: 7"),
        (GOOD * 20_000, "long: 2260000"),
        (
            "Heart failure is a syndrome in which the heart cannot pump enough blood to the body. " * 2,
            "not_japanese: 0.00",
        ),
        (
            "心力衰竭是各種心臟疾病導致的終末階段患者表現為呼吸困難乏力和水腫治療包括藥物和器械" * 5 + "一",
            "no_kana: 0 of 206",
        ),
        ("ã\u0081\u0082ã\u0081\u0084ã\u0081\u0086" * 20, "garbled: 0.67"),
        ("縺ゅ＞縺?∴縺" * 20, "garbled: 0.57"),
        (GOOD + "\ufffd" * 10, "garbled: 0.08"),
        ("(cid:123)(cid:45)" * 20, "garbled: 1.00"),
        (GOOD + ("ご予約はお電話で。" * 60), "repetition: 0.53"),
        ("\n".join(["診療は午前九時から正午までです。"] * 10), "repetition: 0.85"),
    ],
)
def test_each_fault_has_its_reason_and_its_figure(text, reason):
    assert drop_reason(text, LIMITS) == reason


def test_lines_of_a_web_page_that_say_nothing_go_and_the_rest_stays():
    page = f"ホーム\nログイン\n{GOOD}\n続きを読む\nCopyright 2015 Clinic\nプライバシーポリシー"
    kept, removed = without_boilerplate(page)
    assert kept == GOOD
    assert removed == len(page) - len(GOOD)


def test_a_page_that_was_mostly_menus_is_dropped_as_such():
    kept, removed = without_boilerplate("\n".join(["ログイン", "会員登録", "お問い合わせ"] * 30 + ["診療時間のご案内"]))
    assert drop_reason(kept, LIMITS, removed) == "boilerplate: 510 of 518 characters"


def test_text_that_speaks_of_search_and_print_is_left_alone():
    text = "病院の検索には地域の一覧を用い、印刷して持参するとよい。関連する検査については主治医に尋ねること。"
    assert without_boilerplate(text) == (text, 0)


def test_a_text_that_never_repeats_itself_has_no_repetition():
    assert repetition("".join(chr(0x4E00 + number) for number in range(500))) == 0


@pytest.mark.parametrize("name", ["medtxt_case_reports", "jaquad_contexts_medical", "pharmacopoeia_easy"])
def test_real_medical_text_stays_but_for_scraps(shared_data, name):
    column = "in" if name == "pharmacopoeia_easy" else "text"
    texts = [
        normalise(json.loads(line)[column])
        for line in (shared_data / f"text/{name}.jsonl").read_text("utf-8").splitlines()
    ]
    reasons = [drop_reason(text, LIMITS) for text in texts]
    assert len(texts) >= 197
    assert [reason for reason in reasons if reason and not reason.startswith("short")] == []
