"""No document exists without dates, licence and a place; the gate says why a text is none."""

from datetime import date

import pytest

from medllm.corpus.documents import AdmissionGate, Document, Draft
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
