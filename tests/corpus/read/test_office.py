"""Word, PowerPoint and PDF files are read; a scan, a locked file and a broken one are refused with the reason."""

import io
import struct
import zipfile

import pypdf
import pytest
from docx import Document
from pptx import Presentation
from pptx.util import Inches
from pypdf.generic import ArrayObject, DecodedStreamObject, DictionaryObject, NameObject

from medllm.corpus.read.files import read_drafts
from medllm.corpus.read.office import join_words, read_docx, read_epub, read_pdf, read_pptx, without_running_lines
from medllm.corpus.read.raw_files import GRACE
from medllm.corpus.read.sources import TextSource, split_source
from tests.refusals import refused

TEXT = "発熱と咳嗽を主訴に来院した。"


def saved(document) -> bytes:
    stream = io.BytesIO()
    document.save(stream)
    return stream.getvalue()


def word_file() -> bytes:
    document = Document()
    document.sections[0].header.paragraphs[0].text = "病棟だより"
    document.add_heading("肺炎", 1)
    document.add_paragraph(TEXT)
    table = document.add_table(2, 2)
    for number, cell in enumerate(cell for row in table.rows for cell in row.cells):
        cell.text = f"欄{number}"
    table.add_row().cells[0].merge(table.rows[2].cells[1]).text = "合計"
    document.add_paragraph("終わり。")
    return saved(document)


def slides() -> bytes:
    presentation = Presentation()
    for title in ("一枚目", "二枚目"):
        slide = presentation.slides.add_slide(presentation.slide_layouts[1])
        slide.shapes.title.text = title
        slide.placeholders[1].text = TEXT
    slide.shapes.add_table(1, 2, Inches(1), Inches(1), Inches(4), Inches(1)).table.cell(0, 1).text = "右"
    group = slide.shapes.add_group_shape()
    group.shapes.add_textbox(Inches(1), Inches(1), Inches(1), Inches(1)).text_frame.text = "囲み"
    slide.notes_slide.notes_text_frame.text = "口頭で説明する。"
    return saved(presentation)


def test_a_word_file_is_read_in_its_order_with_its_tables_and_without_its_header():
    assert read_docx(word_file()).split("\n") == ["肺炎", TEXT, "欄0\t欄1", "欄2\t欄3", "合計", "終わり。"]


def test_slides_are_read_one_after_the_other_with_tables_groups_and_notes():
    lines = [line for line in read_pptx(slides()).split("\n") if line]
    assert lines == ["一枚目", TEXT, "二枚目", TEXT, "\t右", "囲み", "口頭で説明する。"]


def test_both_are_texts_of_a_source_alone_and_inside_an_archive(tmp_path):
    (tmp_path / "a.docx").write_bytes(word_file())
    (tmp_path / "b.PPTX").write_bytes(slides())
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("in/a.docx", word_file())
    found = {draft.locator: draft for part in split_source(TextSource("w", tmp_path)) for draft in read_drafts(part)}
    assert sorted(found) == ["a.docx", "b.PPTX", "c.zip/in/a.docx"]
    assert all(TEXT in draft.text and draft.fault is None for draft in found.values())


@pytest.mark.parametrize("read", [read_docx, read_pptx])
def test_a_broken_file_an_old_one_and_an_empty_one_are_refused(read):
    whole = word_file() if read is read_docx else slides()
    with refused("corpus.broken-archive"):
        read(whole[: len(whole) // 2])
    with refused("corpus.broken-archive"):
        read(struct.pack("<Q", 0xE11AB1A1E011CFD0) + bytes(600))  # a locked file, or one of before 2007
    with refused("corpus.no-text"):
        read(saved(Document() if read is read_docx else Presentation()))
    with refused("corpus.broken-office-file"):
        read(slides() if read is read_docx else word_file())


def test_a_file_that_unpacks_to_far_more_is_refused_before_it_is_opened():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", bytes(GRACE + 1))
    with refused("corpus.archive-bomb", "word/document.xml"):
        read_docx(stream.getvalue())


def test_entities_of_a_file_are_not_expanded():
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(word_file())) as whole, zipfile.ZipFile(stream, "w") as archive:
        for info in whole.infolist():
            data = whole.read(info)
            if info.filename == "word/document.xml":
                entities = b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
                data = data.replace(b"?>", b"?>" + entities, 1).replace(TEXT.encode(), b"&x;", 1)
            archive.writestr(info, data)
    assert "root:" not in read_docx(stream.getvalue())


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


def japanese_pdf(codes: bytes, cmap: str, latin: str = "") -> bytes:
    """A PDF whose font has this predefined CMap and no map to Unicode, with a line in a plain font below."""
    writer = pypdf.PdfWriter()
    page = writer.add_blank_page(595, 842)
    name = NameObject
    below = DictionaryObject(
        {name("/Type"): name("/Font"), name("/Subtype"): name("/CIDFontType0"), name("/BaseFont"): name("/Mincho")}
    )
    japanese = DictionaryObject(
        {
            name("/Type"): name("/Font"),
            name("/Subtype"): name("/Type0"),
            name("/BaseFont"): name("/Mincho"),
            name("/Encoding"): name(cmap),
            name("/DescendantFonts"): ArrayObject([writer._add_object(below)]),
        }
    )
    plain = DictionaryObject(
        {name("/Type"): name("/Font"), name("/Subtype"): name("/Type1"), name("/BaseFont"): name("/Helvetica")}
    )
    fonts = {name("/F1"): writer._add_object(japanese), name("/F2"): writer._add_object(plain)}
    page[name("/Resources")] = DictionaryObject({name("/Font"): DictionaryObject(fonts)})
    stream = DecodedStreamObject()
    stream.set_data(f"BT /F1 12 Tf 72 720 Td <{codes.hex()}> Tj /F2 12 Tf 0 -40 Td ({latin}) Tj ET".encode())
    page[name("/Contents")] = stream
    buffer = io.BytesIO()
    writer.write(buffer)
    return buffer.getvalue()


SENTENCE = "好中球は貪食作用により細菌を取りこむ血球であり、炎症の初期に集まる。"


@pytest.mark.parametrize(
    ("cmap", "codes"),
    [
        *((f"/{name}-{way}", SENTENCE.encode("cp932")) for name in ("90ms-RKSJ", "90msp-RKSJ") for way in "HV"),
        *((f"/{name}-H", SENTENCE.encode("shift_jis")) for name in ("83pv-RKSJ", "90pv-RKSJ", "Add-RKSJ", "Ext-RKSJ")),
        ("/EUC-H", SENTENCE.encode("euc_jp")),
        ("/EUC-V", SENTENCE.encode("euc_jp")),
        ("/H", bytes(one & 0x7F for one in SENTENCE.encode("euc_jp"))),
        ("/V", bytes(one & 0x7F for one in SENTENCE.encode("euc_jp"))),
        ("/UniJIS-UCS2-H", SENTENCE.encode("utf-16-be")),
        ("/UniJIS-UCS2-HW-H", SENTENCE.encode("utf-16-be")),
        ("/UniJIS-UTF16-H", SENTENCE.encode("utf-16-be")),
        ("/UniJIS2004-UTF16-V", SENTENCE.encode("utf-16-be")),
        ("/UniJIS-UTF8-H", SENTENCE.encode("utf-8")),
        ("/UniJIS-UTF32-H", SENTENCE.encode("utf-32-be")),
    ],
)
def test_japanese_is_read_by_the_cmap_it_is_written_with(cmap, codes):
    assert read_pdf(japanese_pdf(codes, cmap)).strip() == SENTENCE


@pytest.mark.parametrize("cmap", ["/Identity-H", "/Identity-V", "/CNS-EUC-H", "/Own-H"])
def test_codes_that_do_not_say_which_characters_they_are_are_refused_and_not_guessed(cmap):
    with refused("corpus.unmapped-pdf", "Mincho"):
        read_pdf(japanese_pdf(SENTENCE.encode("utf-16-be"), cmap))


def test_codes_that_the_encoding_does_not_have_are_refused():
    with refused("corpus.unmapped-pdf", " of ", " characters"):
        read_pdf(japanese_pdf(b"\xff\xfd" * 20 + SENTENCE.encode("cp932"), "/90ms-RKSJ-H"))


def test_a_bullet_without_a_character_does_not_cost_the_document():
    text = "Aspirin inhibits cyclooxygenase in platelets and prolongs the bleeding time for several days. " * 2
    assert text.strip() in read_pdf(japanese_pdf(b"\x00\x21", "/Identity-H", text))


def test_the_text_of_all_pages_is_read():
    text = read_pdf(pdf(["Aspirin inhibits cyclooxygenase in platelets", "and prolongs the bleeding time for days."]))
    assert text == "Aspirin inhibits cyclooxygenase in platelets\n\nand prolongs the bleeding time for days."


def test_a_scan_is_refused_and_not_turned_into_noise():
    with refused("corpus.scanned-pdf", "3 pages", "1 characters") as caught:
        read_pdf(pdf(["", "7", ""]))
    assert caught.value.reason == "scanned_pdf"


def test_a_locked_and_a_broken_pdf_are_named():
    with refused("corpus.locked-pdf"):
        read_pdf(pdf(["Aspirin inhibits cyclooxygenase"], password="secret"))
    with refused("corpus.broken-pdf", "Error: "):
        read_pdf(b"%PDF-1.7\nnothing")


def test_running_heads_feet_and_page_numbers_are_dropped_and_the_text_stays():
    bodies = ["Fever and cough.", "The pulse is 88.", "It is treated at home.", "The end."]
    foot = "11/28/26, 10:29 PM file:///C:/notes.html"
    pages = [f"Ward notes\n{body}\nMore of {body}\n{foot}\n- {number} -" for number, body in enumerate(bodies, 1)]
    assert without_running_lines(pages) == [f"{body}\nMore of {body}" for body in bodies]


@pytest.mark.parametrize(
    "heads", [["問1", "問2", "問3"], ["Q 1", "Q 2", "Q 3"], ["第1章", "第2章", "第3章"], ["a", "b", "a"]]
)
def test_numbered_questions_and_chapters_at_the_top_of_each_page_stay(heads):
    pages = [f"{head}\n本文{number}の一行目\n本文{number}の二行目" for number, head in enumerate("一二三")]
    pages = [page.replace(sign, head, 1) for page, sign, head in zip(pages, "一二三", heads, strict=True)]
    assert without_running_lines(pages) == pages


def test_two_pages_and_pages_of_one_line_are_left_as_they_are():
    assert without_running_lines(["Notes\na\nb", "Notes\nc\nd"]) == ["Notes\na\nb", "Notes\nc\nd"]
    assert without_running_lines(["Notes"] * 4) == ["Notes"] * 4


def test_a_pdf_is_read_without_its_running_head():
    body = "The patient has a fever, a cough and a pulse of eighty-eight on day"
    texts = [
        f"Ward notes) Tj 0 -20 Td ({body} {day}) Tj 0 -20 Td (Then rest for {day}." for day in ("one", "two", "three")
    ]
    assert read_pdf(pdf(texts)) == "\n\n".join(f"{body} {day}\nThen rest for {day}." for day in ("one", "two", "three"))


OPF = """<package xmlns="http://www.idpf.org/2007/opf" version="3.0">
<metadata xmlns:dc="http://purl.org/dc/elements/1.1/">
<dc:date>2015-04-01</dc:date><dc:rights>CC BY 4.0</dc:rights></metadata>
<manifest><item id="two" href="ch%202.xhtml"/>
<item id="one" href="../one.xhtml"/><item id="menu" href="nav.xhtml"/></manifest>
<spine><itemref idref="one"/><itemref idref="two"/></spine></package>"""


def book(**changed: str | None) -> bytes:
    """Return an EPUB book of two chapters, with files changed or (None) left out."""
    files: dict[str, str | None] = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
        '<rootfile full-path="OPS/book.opf"/></rootfiles></container>',
        "OPS/book.opf": OPF,
        "OPS/nav.xhtml": "<html><body>目次</body></html>",
        "one.xhtml": f"<html><body><h1>第一章</h1><p>{TEXT}</p></body></html>",
        "OPS/ch 2.xhtml": "<html><body><p>第二章の<ruby>本文<rt>ほんぶん</rt></ruby>。</p></body></html>",
    }
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, text in {**files, **changed}.items():
            if text is not None:
                archive.writestr(name, text)
    return stream.getvalue()


def test_a_book_is_read_in_the_order_of_its_spine_with_its_date_and_licence():
    page = read_epub(book())
    assert page.text == f"第一章\n{TEXT}\n第二章の本文。"
    assert (page.published, page.license) == ("2015-04-01", "CC BY 4.0")


def test_a_book_is_a_text_of_a_source(tmp_path):
    (tmp_path / "book.epub").write_bytes(book())
    (draft,) = [draft for part in split_source(TextSource("s", tmp_path)) for draft in read_drafts(part)]
    assert (draft.fault, draft.published, TEXT in draft.text) == (None, "2015-04-01", True)


@pytest.mark.parametrize(
    "changed",
    [
        {"META-INF/container.xml": None},
        {"OPS/book.opf": "<package"},
        {"OPS/book.opf": OPF.replace('idref="two"', 'idref="three"')},
        {"one.xhtml": None},
        {"OPS/book.opf": '<!DOCTYPE p [<!ENTITY a "aaaa">]>' + OPF},
    ],
)
def test_a_broken_book_is_refused(changed):
    with refused("corpus.broken-office-file", "epub"):
        read_epub(book(**changed))


def test_a_book_with_encrypted_chapters_is_refused_and_one_with_hidden_fonts_is_read():
    locked = '<encryption xmlns:enc="http://www.w3.org/2001/04/xmlenc#"><enc:CipherReference URI="{}"/></encryption>'
    with refused("corpus.locked-book"):
        read_epub(book(**{"META-INF/encryption.xml": locked.format("OPS/ch%202.xhtml")}))
    assert TEXT in read_epub(book(**{"META-INF/encryption.xml": locked.format("OPS/font.otf")})).text


@pytest.mark.parametrize(
    ("lines", "joined"),
    [
        ("bile nephrosis is rare; bile neph\nrosis", "bile nephrosis is rare; bile nephrosis"),
        ("the liver and the\nkidney", "the liver and the\nkidney"),
        ("in to, into, and in\nto", "in to, into, and in\nto"),
        ("hyper-\ntension", "hypertension"),
        ("well-known, and well-\nknown", "well-known, and well-known"),
        ("COVID-\n19", "COVID-\n19"),
    ],
)
def test_a_latin_word_that_a_line_divides_is_joined_only_where_the_text_shows_that_it_is_one(lines, joined):
    assert join_words(lines) == joined
