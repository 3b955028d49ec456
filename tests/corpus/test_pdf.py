"""A PDF with text is read; a scan, a locked file and a broken one are refused with the reason."""

import io

import pypdf
import pytest
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

from medllm.corpus.pdf import read_pdf
from medllm.errors import DataError


def pdf(pages: list[str], password: str | None = None) -> bytes:
    """A PDF with a line of Latin text on each page; a page without text is what a scan is."""
    writer = pypdf.PdfWriter()
    for text in pages:
        page = writer.add_blank_page(595, 842)
        font = DictionaryObject(
            {
                NameObject("/Type"): NameObject("/Font"),
                NameObject("/Subtype"): NameObject("/Type1"),
                NameObject("/BaseFont"): NameObject("/Helvetica"),
            }
        )
        fonts = DictionaryObject({NameObject("/F1"): writer._add_object(font)})
        page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
        stream = DecodedStreamObject()
        stream.set_data(f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode())
        page[NameObject("/Contents")] = writer._add_object(stream)
    if password:
        writer.encrypt(password, algorithm="RC4-128")
    buffer = io.BytesIO()
    writer.write(buffer)
    return buffer.getvalue()


def test_the_text_of_all_pages_is_read():
    text = read_pdf(pdf(["Aspirin inhibits cyclooxygenase in platelets", "and prolongs the bleeding time for days."]))
    assert text == "Aspirin inhibits cyclooxygenase in platelets\n\nand prolongs the bleeding time for days."


def test_a_scan_is_refused_and_not_turned_into_noise():
    with pytest.raises(DataError) as fault:
        read_pdf(pdf(["", "7", ""]))
    assert str(fault.value) == (
        "scanned_pdf: 3 pages hold 1 characters. Run OCR, check what it read, hand in the text."
    )


def test_a_locked_and_a_broken_pdf_are_named():
    with pytest.raises(DataError, match=r"^locked_pdf: it needs a password\. Save it without one\.$"):
        read_pdf(pdf(["Aspirin inhibits cyclooxygenase"], password="secret"))
    with pytest.raises(DataError, match=r"^broken_pdf: \w+: "):
        read_pdf(b"%PDF-1.7\nnothing")
