"""Spelling is made one where that is safe, and nothing that a sentence says is changed."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medllm.corpus.clean.normalise import _LOOSE, _composed, normalise


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
