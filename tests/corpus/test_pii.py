"""Patients are found however their data is written, doctors' prose is not, and what was found is never repeated."""

import json

import pytest

from medllm.corpus.pii import RULES, find, hide


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("患者氏名：山田 花子、四十歳。", "name"),
        ("氏名: 鈴木一郎", "name"),
        ("佐藤様は昨夜から発熱している。", "name"),
        ("高橋健太さんが来院した。", "name"),
        ("生年月日は昭和30年5月1日である。", "birth"),
        ("生年月日：1955/05/01", "birth"),
        ("昭和三十年ではなく昭和30年5月1日生まれの男性。", "birth"),
        ("電話は03-1234-5678へ。", "phone"),
        ("携帯０９０－１２３４－５６７８", "phone"),
        ("連絡先 09012345678", "phone"),
        ("+81-90-1234-5678", "phone"),
        ("taro.yamada@example.ne.jp に送る", "mail"),
        ("カルテ番号 A-0012345", "record"),
        ("患者ID：00123456", "record"),
        ("被保険者番号：12345678", "insurance"),
        ("〒123-4567", "address"),
        ("住所：東京都千代田区", "address"),
        ("氏名　佐藤　花子", "name"),
        ("Patient name: John Smith", "name"),
        ("DOB: 1958-04-05", "birth"),
        ("TEL 0312345678", "phone"),
        ("診察券番号 123-456", "record"),
        ("MRN 1234567", "record"),
        ("保険証の記号 12 番号 3456", "insurance"),
        ("連絡は 080‐1234‐5678 へ", "phone"),
        ("080−1234−5678", "phone"),
        ("080–1234–5678", "phone"),
        ("080ー1234ー5678", "phone"),
        ("080ｰ1234ｰ5678", "phone"),
        ("080―1234―5678", "phone"),
        ("080.1234.5678", "phone"),
        ("(06)1234-5678", "phone"),
        ("電話（０６）１２３４－５６７８", "phone"),
        ("06(1234)5678", "phone"),
        ("TEL06-1234-5678", "phone"),
        ("tel. 06 1234 5678", "phone"),
        ("+81(0)80-1234-5678", "phone"),
        ("0120-456-789", "phone"),
        ("0570-012-345", "phone"),
        ("内線 2345", "phone"),
        ("マイナンバー 2345 6789 0123", "insurance"),
        ("個人番号：2345-6789-0123", "insurance"),
        ("基礎年金番号 1234-567890", "insurance"),
        ("公費負担者番号 12345678", "insurance"),
        ("S39.5.6生の女性", "birth"),
        ("昭39.5.6生", "birth"),
        ("Ｓ３９．５．６生", "birth"),
        ("1964.5.6生", "birth"),
        ("1964/5/6生まれ", "birth"),
        ("平成元年5月1日生", "birth"),
        ("昭和三十九年五月六日生まれ", "birth"),
        ("生年月日 H1.5.1", "birth"),
        ("taro[at]example.com", "mail"),
        ("ｔａｒｏ＠ｅｘａｍｐｌｅ．ｃｏｍ", "mail"),
        ("〒123−4567", "address"),
        ("郵便番号123-4567", "address"),
        ("住所：名古屋市東区", "address"),
        ("現住所は福岡市中央区", "address"),
        ("患者：山田太郎", "name"),
        ("フリガナ：ヤマダ ハナコ", "name"),
        ("カルテNo.12345", "record"),
        ("運転免許証番号 123456789012", "record"),
    ],
)
def test_personal_data_is_found_and_hidden(text, rule):
    findings = find(text, "d1")
    assert [one.rule for one in findings] == [rule]
    hidden = hide(text, findings)
    assert find(hidden, "d1") == []
    assert text[findings[0].begin : findings[0].end] not in hidden + findings[0].around


@pytest.mark.parametrize(
    "text",
    [
        "患者の氏名を確認してから採血する。",
        "患者名の欄は空白とした。",
        "投与量は0.5-1.0 mg、期間は2010-2015年である。",
        "血圧120-80、検査番号は付さない。",
        "2015年4月1日に発症し、4月3日に入院した。",
        "山田らは1990年に報告した。田中分類のII型である。",
        "患者さんや家族さんに説明する。お母さんと来院した。",
        "平成20年3月1日生検を施行した。",
        "氏名 住所 生年月日 の欄がある。",
        "Patient names were removed; the medical record was reviewed in 2015.",
        "CAS登録番号は439-14-5である。",
        "登録番号のない製剤は用いない。ISSN 0012-3456。",
        "C27H37FO6：476.58、12-34-56-7",
        "コード B03-0120-5678 の薬",
        "ATC コードは N02BE01、UMIN000012345、jRCT1031200123。",
        "doi: 10.1016/j.jacc.2015.01.001、S0140-6736(15)00123-4",
        "PMID: 01234567、ISBN 978-4-06-123456-7",
        "S40.4.3は測定値、H1.2.3受容体、T1.2.3生存群",
        "平成30年5月1日生産の試料、令和2年3月1日生じた。",
        "患者の田中分類、患者 数は増えた。",
        "住所は不明、郵便番号の欄は空白。",
        "12：30－13：45、10-20-30 mg",
    ],
)
def test_what_only_looks_like_it_is_left_alone(text):
    assert find(text, "d1") == []


def test_real_texts_without_patients_names_have_no_finding(shared_data):
    texts = [
        json.loads(line)["text"]
        for line in (shared_data / "text/medtxt_case_reports.jsonl").read_text("utf-8").splitlines()
    ]
    texts += [
        json.loads(line)["in"]
        for line in (shared_data / "text/pharmacopoeia_easy.jsonl").read_text("utf-8").splitlines()
    ]
    assert len(texts) == 397
    assert [one for text in texts for one in find(text, "d")] == []


def test_a_finding_keeps_its_id_so_that_an_answer_stays_with_it():
    text = "患者ID：00123456"
    assert find(text, "d1")[0].id == find("前置き。" + text, "d1")[0].id
    assert find(text, "d1")[0].id != find(text, "d2")[0].id


def test_two_findings_in_one_sentence_are_both_hidden_in_the_report():
    one, other = find("患者氏名：山田花子、電話03-1234-5678。", "d1")
    assert one.around == other.around == "［氏名］、電話［電話番号］。"


def test_a_rule_that_never_matches_would_be_noticed():
    assert set(RULES) == {"mail", "phone", "birth", "record", "insurance", "name", "address"}
