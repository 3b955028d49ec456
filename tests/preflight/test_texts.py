"""Texts before the work: licence and date are asked for together, with the line to write."""

from tests.preflight.conftest import Ward


def test_licence_and_date_are_asked_for_at_once_with_the_line_to_write(ward: Ward):
    (fault,) = ward.find(corpus__data="./texts")
    assert (fault.place, fault.code) == ("corpus.data[0]", "corpus.facts-missing")
    assert "no licence and no date of publication" in fault.text
    assert "{source: ./texts, license: cc-by-4.0, published: 2015-04-01}" in fault.text


def test_only_what_is_missing_is_asked_for_and_what_is_stated_stays_in_the_line(ward: Ward):
    (fault,) = ward.find(corpus__data={"source": "./texts", "license": "cc0-1.0"})
    assert "{source: ./texts, license: cc0-1.0, published: 2015-04-01}" in fault.text
    assert "no licence" not in fault.text


def test_a_source_whose_texts_state_both_needs_no_line(ward: Ward):
    front = "---\ndate: 2014-05-01\nlicense: cc-by-4.0\n---\n"
    (ward.folder / "texts" / "b.md").write_text(front + "胸痛の患者。", "utf-8")
    assert ward.codes(corpus__data="./texts") == []


def test_a_folder_without_a_readable_file_is_a_fault(ward: Ward):
    (ward.folder / "texts" / "a.txt").unlink()
    (ward.folder / "texts" / "scan.tiff").write_bytes(b"II*\0")
    assert [place for place, _ in ward.codes()] == ["corpus.data[0]"]
    (ward.folder / "texts" / "a.pdf").write_bytes(b"%PDF-1.4 cut off")
    assert ward.codes() == [("corpus.data[0]", "corpus.nothing-readable")]


def test_a_tokenizer_folder_without_a_tokenizer_is_a_fault(ward: Ward):
    assert ward.codes(corpus__tokenizer="./texts") == [("corpus.tokenizer", "corpus.no-tokenizer")]
    assert ward.codes(corpus__tokenizer="base") == []
