"""JSON lines, CSV and Parquet to drafts, row by row: no file is in memory whole, no line exceeds a document's limit."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from typing import BinaryIO

from medllm.corpus.documents import Draft, UnreadableError
from medllm.corpus.read.raw_files import LARGEST, SAMPLE, WIDE, decode, name_encoding, open_bytes
from medllm.corpus.read.sources import SourcePart
from medllm.errors import DataError

DEFAULTS = {
    "text": ("text", "body", "content"),
    "published": ("published", "published_at", "date", "year"),
    "license": ("license", "licence"),
    "exam_date": ("exam_date",),
    "id": ("id",),
}
Row = Mapping[str, object]


def read_lines(piece: SourcePart) -> Iterator[Draft]:
    """Yield the drafts in a JSONL file, or in those of its lines that begin inside the piece."""
    with open_bytes(piece.path) as stream:
        sample = stream.read(SAMPLE)
    if not sample.strip() and len(sample) < SAMPLE:
        raise UnreadableError("corpus.empty-file", "the file is empty. Remove it.")
    encoding = _encoding(sample)
    if encoding in WIDE:
        stream, encoding = io.BytesIO(_whole(piece).encode()), "utf-8"
    else:
        stream = open_bytes(piece.path)
    with stream:
        for number, line in _lines(stream, piece):
            place = f"{piece.name}:{number}"
            if isinstance(line, int):
                fault = f"too_large: a line of {line:,} bytes, more than {LARGEST:,}. Cut the document into parts."
                yield piece.source.draft("", place, {}, fault=fault)
            elif line.strip():
                yield _draft(piece, place, line, encoding)


def _encoding(sample: bytes) -> str:
    """Return the encoding of most lines: one broken line does not change the encoding of a UTF-8 file."""
    try:
        encoding = name_encoding(sample)
    except UnreadableError:
        encoding = ""
    lines = [line for line in sample.split(b"\n")[:-1] if not line.isascii()]
    if not encoding.startswith("utf-8") and lines and sum(map(_is_utf8, lines)) * 2 >= len(lines):
        return "utf-8"
    return encoding or name_encoding(sample)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _whole(piece: SourcePart) -> str:
    if piece.size > LARGEST:
        raise UnreadableError(
            "corpus.too-large", "a UTF-16 file of this size cannot be cut into lines. Convert it to UTF-8."
        )
    with open_bytes(piece.path) as stream:
        return decode(stream.read(LARGEST))


def _lines(stream: BinaryIO, piece: SourcePart) -> Iterator[tuple[int, bytes | int]]:
    """Yield number and bytes of each line; for a line that is too long only its length."""
    place, number = 0, piece.line
    if piece.begin:
        # A line that begins before this piece belongs to the piece before.
        stream.seek(piece.begin - 1)
        skipped = _skip(stream, piece.size + 1)
        place, number = piece.begin - 1 + skipped, number + (skipped > 1)
    while piece.end is None or place < piece.end:
        line = stream.readline(LARGEST + 1)
        if not line:
            return
        place += len(line)
        if len(line) > LARGEST and not line.endswith(b"\n"):
            rest = _skip(stream)
            place += rest
            yield number, len(line) + rest
        else:
            yield number, line
        number += 1


def _skip(stream: BinaryIO, most: int | None = None) -> int:
    """Skip to the end of the line, or stop after more than `most` bytes."""
    skipped = 0
    while (most is None or skipped < most) and (line := stream.readline(1 << 20)):
        skipped += len(line)
        if line.endswith(b"\n"):
            break
    return skipped


def _draft(piece: SourcePart, place: str, line: bytes, encoding: str) -> Draft:
    try:
        row = json.loads(line.decode(encoding))
    except UnicodeDecodeError as fault:
        written = line.decode(encoding, "replace").strip()[:1000]
        return piece.source.draft(written, place, {}, fault=f"broken_encoding: byte {fault.start} is not {encoding}")
    except (ValueError, RecursionError) as fault:
        return piece.source.draft(
            line[:1000].decode(encoding, "replace"), place, {}, fault=f"broken_json: {json_fault(fault)}"
        )
    if not isinstance(row, dict):
        return piece.source.draft(str(row)[:1000], place, {}, fault="broken_json: the line is not an object")
    return row_draft(piece, place, row)


def json_fault(fault: ValueError | RecursionError) -> str:
    """Describe unreadable JSON; Python's messages about its own limits do not help to correct a file."""
    if isinstance(fault, json.JSONDecodeError):
        return str(fault)
    return "it is nested too deeply" if isinstance(fault, RecursionError) else "a number is too long"


def row_draft(piece: SourcePart, place: str, row: Row) -> Draft:
    """Return the draft in a row, by the recipe's mapping of columns or the usual names.

    A row without the column, or with a value in it that is no text, becomes a draft with a fault.
    """
    stated = {name: _column(piece, row, name) for name in ("published", "license", "exam_date")}
    own = _column(piece, row, "id")
    place = f"{place}#{own}" if own else place
    given = _given(piece, row, "text")
    if isinstance(given, str):
        return piece.source.draft(given, place, stated)
    there = ", ".join(str(name) for name in list(row)[:12]) or "none"
    named = [name for name in _names(piece, "text") if name in row]
    if given is not None:
        return piece.source.draft(
            "", place, stated, fault=f"no_text: `{named[0]}` holds {_kind(given)} instead of a text"
        )
    if named:
        return piece.source.draft("", place, stated, fault=f"no_text: `{named[0]}` is empty")
    fault = f"{NO_COLUMN} `{_names(piece, 'text')[0]}`. There is: {there}"
    if isinstance(row.get("messages") or row.get("conversations"), list):
        fault += ". These are chat rows: write what the model learns from them as `text`"
    return piece.source.draft("", place, stated, fault=fault)


NO_COLUMN = "no_text: no column"
"""Start of the fault of a row without the text column."""
ROWS_WITHOUT_TEXT = 1000
"""Number of first rows without the column after which the column counts as missing from the file."""


def refuse_without_text(piece: SourcePart, drafts: Iterator[Draft]) -> Iterator[Draft]:
    """Pass drafts on; raise DataError if no row has the text column, which is a mistake of the recipe."""
    lacking: list[Draft] = []
    for draft in drafts:
        if piece.begin or not (draft.fault or "").startswith(NO_COLUMN):
            yield from (*lacking, draft)
            yield from drafts
            return
        lacking.append(draft)
        if len(lacking) == ROWS_WITHOUT_TEXT:
            break
    if lacking:
        raise DataError(
            "corpus.no-text-column",
            f"{piece.source.name}: {lacking[0].locator} has {str(lacking[0].fault).partition(': ')[2]}. "
            "Name the text column: `--column NAME`, or columns: {text: NAME} in a recipe.",
        )


def _kind(value: object) -> str:
    kinds = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return kinds.get(type(value), type(value).__name__)


def _given(piece: SourcePart, row: Row, what: str) -> object:
    """Return the value of the first filled column of these names."""
    filled = (row[name] for name in _names(piece, what) if row.get(name) is not None and row.get(name) != "")
    return next(filled, None)


def _names(piece: SourcePart, what: str) -> tuple[str, ...]:
    mapped = piece.source.columns.get(what)
    return (mapped,) if mapped else DEFAULTS[what]


def _column(piece: SourcePart, row: Row, what: str) -> str | None:
    value = _given(piece, row, what)
    return None if value is None else value if isinstance(value, str) else str(value)


def read_csv(piece: SourcePart, data: bytes) -> Iterator[Draft]:
    """Yield the drafts in a table with a header line, separated by commas or tabs."""
    before = csv.field_size_limit(LARGEST)  # the limit is global, so it is restored
    stream = io.StringIO(decode(data), newline="")
    rows = csv.DictReader(stream, delimiter="\t" if piece.name.lower().endswith(".tsv") else ",")
    try:
        for row in rows:
            yield row_draft(piece, f"{piece.name}:{rows.line_num}", {k: v for k, v in row.items() if k is not None})
    except csv.Error as fault:
        raise UnreadableError(
            "corpus.broken-table",
            f"line {rows.line_num} is broken ({fault}). Put texts with commas in quotation marks.",
        ) from None
    finally:
        csv.field_size_limit(before)


ROOM = 1024 * 1024 * 1024
"""Maximum bytes of an unpacked row group."""


def read_parquet(piece: SourcePart) -> Iterator[Draft]:
    """Yield the drafts in a Parquet file; unpack only the requested columns."""
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(piece.path) as table:
            names = [*piece.source.columns.values(), *(name for names in DEFAULTS.values() for name in names)]
            there = table.schema_arrow.names
            wanted = [name for name in there if name in names]
            _fits(table.metadata)
            number = 0
            # If the file has no requested column, the fault of the first row lists the existing ones.
            for batch in table.iter_batches(batch_size=256, columns=wanted or there):
                for row in batch.to_pylist():
                    number += 1
                    yield row_draft(piece, f"{piece.name}:{number}", row)
    except pyarrow.ArrowException as fault:
        raise UnreadableError(
            "corpus.broken-parquet", f"the parquet file is broken ({fault}). Write it again."
        ) from None


def _fits(metadata: object) -> None:
    groups = getattr(metadata, "num_row_groups", 0)
    for number in range(groups):
        size = metadata.row_group(number).total_byte_size  # type: ignore[attr-defined]
        if size > ROOM:
            raise UnreadableError(
                "corpus.archive-bomb", f"row group {number} unpacks to {size:,} bytes. Write it in smaller groups."
            )
