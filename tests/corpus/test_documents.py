"""No document exists without a date and a licence, however people write them; the gate says why a text is none."""

from datetime import date

import pytest

from medllm.corpus.documents import AdmissionGate, Document, Draft, read_date, read_license
from tests.refusals import refused

GATE = AdmissionGate(date(2017, 12, 31), frozenset({"cc-by-4.0"}))


def draft(**changed) -> Draft:
    values = {"license": "cc-by-4.0", "published": "2015"} | changed
    return Draft("発熱を主訴に来院した。", "notes", "a.txt:1", **values)


@pytest.mark.parametrize(
    ("missing", "code", "place"),
    [
        ({"published": None}, "corpus.no-date", "notes a.txt:1: "),
        ({"license": ""}, "corpus.no-license", "notes a.txt:1: "),
        ({"kind": "exam"}, "corpus.no-exam-date", "notes a.txt:1: "),
        ({"locator": ""}, "corpus.no-provenance", "notes : "),
    ],
)
def test_a_document_without_provenance_cannot_be_made(missing, code, place):
    values = {"locator": "a.txt:1", "license": "cc-by-4.0", "published": date(2015, 1, 1)} | missing
    with refused(code, place):
        Document("発熱", "notes", **values)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"license": None}, "no_license: none is stated"),
        ({"license": "不明"}, "no_license: none is stated"),
        ({"license": "cc-by-nc-4.0"}, "license_not_allowed: cc-by-nc-4.0"),
        ({"published": None}, "no_published_date: none is stated"),
        ({"published": "2018"}, "published_after_cutoff: 2018-12-31"),
        ({"published": "2098-01-01"}, "published_after_cutoff: 2098-01-01"),
        ({"published": "2017", "exam_date": "2018-02-10"}, "exam_after_cutoff: 2018-02-10"),
        ({"kind": "exam"}, "no_exam_date: none is stated"),
        ({"fault": "scanned_pdf: 3 pages"}, "scanned_pdf: 3 pages"),
    ],
)
def test_the_gate_says_why_a_text_stays_outside(changed, reason):
    assert GATE.admit(draft(**changed)) == reason


def test_a_date_that_is_none_stays_outside_with_what_is_wrong_with_it():
    reason = GATE.admit(draft(published="2017/13/45"))
    assert str(reason).startswith("bad_published_date: ") and "`2017/13/45`" in reason and "month 13" in reason


def test_a_text_of_the_last_day_is_admitted_with_its_dates():
    admitted = GATE.admit(draft(published="平成29年", exam_date="2015-02-07"))
    assert isinstance(admitted, Document)
    assert (admitted.published, admitted.exam_date) == (date(2017, 12, 31), date(2015, 2, 7))


def test_without_a_list_every_stated_license_is_allowed_and_unknown_is_not():
    anything = AdmissionGate(date(2017, 12, 31), None)
    assert isinstance(anything.admit(draft(license="cc-by-nc-4.0")), Document)
    assert anything.admit(draft(license=None)) == "no_license: none is stated"


def test_the_same_text_from_another_place_is_another_document():
    one, other = Draft("発熱", "a", "x:1"), Draft("発熱", "a", "x:2")
    assert one.id != other.id
    assert one.id == Draft("発熱", "a", "x:1").id


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2017-03-09", "2017-03-09"),
        ("2017/3/9", "2017-03-09"),
        ("2017年3月9日", "2017-03-09"),
        ("２０１７．３．９", "2017-03-09"),
        ("20170309", "2017-03-09"),
        ("2017-03-09T12:30:00+09:00", "2017-03-09"),
        ("2017-03-09 12:30", "2017-03-09"),
        ("2017", "2017-12-31"),
        (2017, "2017-12-31"),
        ("2016年2月", "2016-02-29"),
        ("平成29年", "2017-12-31"),
        ("平成２９年３月", "2017-03-31"),
        ("平成元年1月8日", "1989-01-08"),
        ("令和元年", "2019-12-31"),
        ("令和元年5月1日", "2019-05-01"),
        ("R6.2.3", "2024-02-03"),
        ("昭和64年1月7日", "1989-01-07"),
        ("S63", "1988-12-31"),
        ("平成31年4月30日", "2019-04-30"),
        (date(2015, 1, 2), "2015-01-02"),
    ],
)
def test_a_date_is_read_as_the_last_day_it_can_mean(written, meant):
    assert read_date(written).isoformat() == meant


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("2017/13/45", "month 13"),
        ("2017-02-30", "month 2 of 2017 has no day 30"),
        ("平成40年", "平成 has"),
        ("令和元年4月30日", "令和 has"),
        ("9999-01-01", "year 9999"),
        ("きのう", "`きのう`"),
        ("", "``"),
        (None, "`None`"),
        ("3/9", "`3/9`"),
    ],
)
def test_what_is_no_date_is_refused_with_the_reason(written, value):
    with refused("corpus.bad-date", f"`{written}`", value, "平成29年3月31日"):
        read_date(written)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("CC BY 4.0", "cc-by-4.0"),
        ("cc-by-sa-4.0", "cc-by-sa-4.0"),
        ("https://creativecommons.org/licenses/by-nc-nd/4.0/", "cc-by-nc-nd-4.0"),
        ("https://creativecommons.org/publicdomain/zero/1.0/deed.ja", "cc0-1.0"),
        ("CC0", "cc0-1.0"),
        ("Apache 2.0", "apache-2.0"),
        ("MIT License", "mit"),
        ("ＭＩＴ", "mit"),
        ("公共データ利用規約（第1.0版）", "pdl-1.0"),
        ("unknown", None),
        ("不明", None),
        ("", None),
        (None, None),
    ],
)
def test_a_license_has_one_spelling(written, name):
    assert read_license(written) == name
