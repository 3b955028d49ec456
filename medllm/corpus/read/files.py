"""Any source as a stream of drafts: an unreadable file becomes a draft with a fault, so that it is counted."""

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import replace

from medllm.corpus.documents import Draft
from medllm.corpus.errors import UnreadableError
from medllm.corpus.read.archives import LARGEST, members, open_bytes
from medllm.corpus.read.encodings import decode
from medllm.corpus.read.exam_sets import read_exam
from medllm.corpus.read.office import read_docx, read_pptx
from medllm.corpus.read.parquet import read_parquet
from medllm.corpus.read.pdf import read_pdf
from medllm.corpus.read.rows import json_fault, read_csv, read_lines, refuse_without_text, row_draft
from medllm.corpus.read.sources import LINES, READABLE, SourcePart, describes_source
from medllm.corpus.read.text_files import PageText, read_html, read_markdown


def read_drafts(piece: SourcePart) -> Iterator[Draft]:
    """Yield every draft of a piece in order; after a file that breaks half-way one more draft reports the fault."""
    try:
        yield from read_exam(piece.source) if piece.source.exam else refuse_without_text(piece, _read(piece))
    except UnreadableError as fault:
        # The first piece of a file reports a fault of the whole file, so it is reported once.
        if not piece.begin:
            yield piece.source.draft("", piece.name, {}, fault=fault.fault)
    except (gzip.BadGzipFile, EOFError, zlib.error) as fault:
        yield piece.source.draft("", piece.name, {}, fault=f"broken_archive: {fault}. Pack it again.")
    except OSError as fault:
        why = f"unreadable_file: {fault.strerror or fault}. Check that it exists and that you can read it."
        yield piece.source.draft("", piece.name, {}, fault=why)


def _read(piece: SourcePart) -> Iterator[Draft]:
    name = piece.name.lower()
    if describes_source(piece.name):
        raise UnreadableError(
            "corpus.about-the-source", "it describes the source, so it is not learnt as a text of it."
        )
    if not name.endswith(READABLE):
        raise UnreadableError(
            "corpus.unknown-format",
            f"`{name.rpartition('.')[2]}` is not a readable format. Readable are {', '.join(READABLE)}.",
        )
    if name.endswith(LINES):
        yield from read_lines(piece)
    elif name.endswith(".parquet"):
        yield from read_parquet(piece)
    elif name.endswith(".zip"):
        for inner, data in members(piece.path):
            yield from _read_inner(piece, inner, data)
    else:
        if piece.size > LARGEST:
            raise UnreadableError(
                "corpus.too-large", f"the file has {piece.size:,} bytes, more than {LARGEST:,}. Cut it into parts."
            )
        with open_bytes(piece.path) as stream:
            yield from _read_data(piece, stream.read())


def _read_inner(piece: SourcePart, inner: str, data: bytes) -> Iterator[Draft]:
    named = replace(piece, name=f"{piece.name}/{inner}")
    try:
        yield from _read_data(named, data)
    except UnreadableError as fault:
        yield piece.source.draft("", named.name, {}, fault=fault.fault)


def _read_data(piece: SourcePart, data: bytes) -> Iterator[Draft]:
    name = piece.name.lower()
    if not data.strip():
        raise UnreadableError("corpus.empty-file", "the file is empty. Remove it.")
    if name.endswith((".csv", ".tsv")):
        yield from read_csv(piece, data)
    elif name.endswith(".json"):
        yield from _read_json(piece, data)
    else:
        page = _page(name, data)
        stated = {"published": page.published, "license": page.license}
        yield piece.source.draft(page.text, piece.name, stated)


def _page(name: str, data: bytes) -> PageText:
    if name.endswith(".pdf"):
        return PageText(read_pdf(data))
    if name.endswith(".docx"):
        return PageText(read_docx(data))
    if name.endswith(".pptx"):
        return PageText(read_pptx(data))
    if name.endswith((".html", ".htm")):
        return read_html(decode(data))
    if name.endswith(".md"):
        return read_markdown(decode(data))
    if name.endswith(".txt"):
        return PageText(decode(data))
    raise UnreadableError(
        "corpus.unknown-format", f"`{name.rpartition('.')[2]}` is not readable inside an archive. Unpack it."
    )


def _read_json(piece: SourcePart, data: bytes) -> Iterator[Draft]:
    import json

    try:
        rows = json.loads(decode(data))
    except (ValueError, RecursionError) as fault:
        raise UnreadableError("corpus.broken-json", f"not JSON: {json_fault(fault)}.") from None
    for number, row in enumerate(rows if isinstance(rows, list) else [rows], 1):
        if isinstance(row, dict):
            yield row_draft(piece, f"{piece.name}:{number}", row)
        else:
            yield piece.source.draft(
                str(row)[:1000], f"{piece.name}:{number}", {}, fault="broken_json: the row is not an object"
            )
