"""What is dropped from a corpus of Japanese, with the figure that decided it; real medical text stays."""

import json

import pytest

from medllm.corpus.clean.filters import FilterLimits, drop_reason, repetition, without_boilerplate
from medllm.corpus.clean.normalise import normalise

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
