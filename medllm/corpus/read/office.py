"""The text of Word and PowerPoint files (.docx, .pptx), in the order in which a reader sees it."""

import io
from collections.abc import Iterable, Iterator
from typing import Any

from medllm.corpus.errors import UnreadableError
from medllm.corpus.read.archives import bounded_archive
from medllm.errors import MissingExtraError


def read_docx(data: bytes) -> str:
    """Read the paragraphs and tables of a Word file; headers, footers and comments are left out."""
    try:
        from docx import Document
        from docx.table import Table
    except ImportError as fault:
        raise MissingExtraError("curate", "Reading .docx files") from fault

    def lines(document: Any) -> Iterator[str]:  # noqa: ANN401  python-docx has no types for its parts
        for block in document.iter_inner_content():
            yield from _rows(block) if isinstance(block, Table) else [block.text]

    return _read(data, "docx", lambda stream: lines(Document(stream)))


def read_pptx(data: bytes) -> str:
    """Read the slides of a PowerPoint file, one after the other: text, tables, groups, and the speaker's notes."""
    try:
        from pptx import Presentation
    except ImportError as fault:
        raise MissingExtraError("curate", "Reading .pptx files") from fault

    def lines(presentation: Any) -> Iterator[str]:  # noqa: ANN401  python-pptx has no types for its parts
        for slide in presentation.slides:
            yield from _shapes(slide.shapes)
            if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
                yield slide.notes_slide.notes_text_frame.text
            yield ""

    return _read(data, "pptx", lambda stream: lines(Presentation(stream)))


def _read(data: bytes, kind: str, lines: Any) -> str:  # noqa: ANN401  a function from a stream to lines
    """Join the lines of a file; raise UnreadableError for one that is locked, broken, too large or without text."""
    bounded_archive(io.BytesIO(data), len(data))
    try:
        text = "\n".join(lines(io.BytesIO(data)))
    except Exception as fault:  # both libraries raise any type of error; the caller names the file
        raise UnreadableError(
            "corpus.broken-office-file", f"the .{kind} file is broken ({type(fault).__name__}: {fault}). Save it again."
        ) from fault
    if not text.strip():
        raise UnreadableError("corpus.no-text", f"the .{kind} file holds no text, at most pictures of it. Run OCR.")
    return text.strip()


def _rows(table: Any) -> Iterator[str]:  # noqa: ANN401
    """Yield one line a row; a cell that is merged over several columns counts once."""
    for row in table.rows:
        cells: list[str] = []
        seen: set[int] = set()
        for cell in row.cells:
            if id(cell._tc) not in seen:
                seen.add(id(cell._tc))
                cells.append(" ".join(cell.text.split()))
        yield "\t".join(cells)


def _shapes(shapes: Iterable[Any]) -> Iterator[str]:
    """Yield the text of shapes in their order, those of groups included."""
    for shape in shapes:
        if hasattr(shape, "shapes"):
            yield from _shapes(shape.shapes)
        elif getattr(shape, "has_table", False) and shape.has_table:
            yield from _rows(shape.table)
        elif shape.has_text_frame:
            yield shape.text_frame.text.replace("\v", "\n")
