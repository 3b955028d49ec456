"""Rows of JSON lines, JSON arrays, CSV and parquet files, each with its place for error messages."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medllm.errors import DataError

Row = tuple[str, dict[str, Any]]
"""The place of a row ("FILE line 3") and its cells."""


def table_rows(path: Path, columns: tuple[str, ...] = ()) -> list[Row]:
    """Read all rows of a file, in the format of its ending; an empty file raises DataError."""
    readers = {".parquet": parquet_rows, ".csv": lambda file: csv_rows(file, columns), ".json": array_rows}
    rows = list(readers.get(path.suffix, json_rows)(path))
    if not rows:
        raise DataError("exam.empty-file", f"{path}: is empty. It should have one row per question.")
    return rows


def json_rows(path: Path) -> Iterator[Row]:
    """Yield the objects of a JSON-lines file; errors about broken JSON and wrong encodings name the line."""
    for number, line in enumerate(_lines(path), start=1):
        place = f"{path} line {number}"
        text = _decoded(line, place)
        if not text.strip():
            continue
        try:
            row = json.loads(text, object_pairs_hook=_once)
        except _NamedTwiceError as fault:
            raise DataError(
                "exam.duplicate-column", f"{place}: the column {fault} occurs twice. Keep the right value."
            ) from fault
        except json.JSONDecodeError as fault:
            raise DataError(
                "exam.broken-json",
                f"{place}: broken JSON at column {fault.colno} ({fault.msg}). Each line must be one JSON object.",
            ) from fault
        yield place, _object(row, place)


def json_document(path: Path) -> Any:  # noqa: ANN401  any JSON value
    """Read a file that is one JSON value; an object that has a name twice is refused."""
    try:
        return json.loads(_decoded(_bytes(path), str(path)), object_pairs_hook=_once)
    except _NamedTwiceError as fault:
        raise DataError(
            "exam.duplicate-column", f"{path}: the column {fault} occurs twice in an object. Keep the right value."
        ) from fault
    except json.JSONDecodeError as fault:
        raise DataError(
            "exam.broken-json",
            f"{path} line {fault.lineno}: broken JSON ({fault.msg}). It must be one whole JSON value.",
        ) from fault


def array_rows(path: Path) -> Iterator[Row]:
    """Yield the objects of a file that is one JSON array."""
    rows = json_document(path)
    if not isinstance(rows, list):
        raise DataError(
            "exam.not-a-list", f"{path}: is {type(rows).__name__}, not a list. It must be one JSON array of objects."
        )
    for number, row in enumerate(rows, start=1):
        place = f"{path} item {number}"
        yield place, _object(row, place)


def csv_rows(path: Path, columns: tuple[str, ...] = ()) -> Iterator[Row]:
    """Yield the rows of a CSV file; its header line names the columns, or `columns` if the file has none."""
    text = io.StringIO(_decoded(_bytes(path), str(path)), newline="")
    reader = csv.DictReader(text, fieldnames=columns or None, strict=True)
    try:
        for row in reader:
            place = f"{path} line {reader.line_num}"
            if None in row or None in row.values():
                raise DataError(
                    "exam.wrong-number-of-columns",
                    f"{place}: does not have {len(reader.fieldnames or ())} columns. Quote texts that have commas"
                    " in them.",
                )
            yield place, dict(row)
    except csv.Error as fault:
        raise DataError(
            "exam.broken-csv",
            f"{path} line {reader.line_num}: broken CSV ({fault}). Put texts with commas or line breaks in"
            " quotation marks.",
        ) from fault


def parquet_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a parquet file."""
    # Here, not above: `medllm check` knows exams by name and must not wait 0.3 s for arrow.
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as fault:
        raise DataError(
            "exam.not-parquet", f"{path}: is not a parquet file ({fault}). Write it with medllm, pandas or pyarrow."
        ) from fault
    for number, row in enumerate(table.to_pylist(), start=1):
        yield f"{path} row {number}", row


class _NamedTwiceError(Exception):
    """A JSON object gives one name two values, and JSON readers disagree on which counts."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a JSON object and refuse a name that occurs twice."""
    row = dict(pairs)
    if len(row) < len(pairs):
        seen: set[str] = set()
        raise _NamedTwiceError(next(name for name, _ in pairs if name in seen or seen.add(name)))  # type: ignore[func-returns-value]
    return row


def _lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file, one in memory at a time."""
    try:
        with path.open("rb") as file:
            yield from file
    except OSError as fault:
        raise DataError(
            "exam.unreadable", f"{path}: cannot be read ({fault.strerror}). Give a readable file."
        ) from fault


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as fault:
        raise DataError(
            "exam.unreadable", f"{path}: cannot be read ({fault.strerror}). Give a readable file."
        ) from fault


def _decoded(raw: bytes, place: str) -> str:
    """Decode UTF-8, with or without a byte-order mark; another encoding raises DataError, never a guess."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        raise DataError(
            "exam.not-utf-8",
            f"{place}: is not UTF-8 (at byte {fault.start + 1}). Save the whole file as UTF-8;"
            " Japanese files are often Shift_JIS or EUC-JP.",
        ) from fault


def _object(row: object, place: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise DataError(
            "exam.not-an-object", f"{place}: is {type(row).__name__}, not an object. Give one JSON object per question."
        )
    return row
