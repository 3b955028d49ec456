"""Word and PowerPoint files, written by the libraries that people's programs are tested with."""

import io
import struct
import zipfile

import pytest
from docx import Document
from pptx import Presentation
from pptx.util import Inches

from medllm.corpus.read.archives import GRACE
from medllm.corpus.read.files import read_drafts
from medllm.corpus.read.office import read_docx, read_pptx
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
