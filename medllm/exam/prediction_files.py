"""Open results files of any tool, each recognised by its content, and yield their rows with their places.

Known: JSON lines, JSON documents, parquet, delimited text, workbooks, and Inspect's logs (`.eval` or JSON).
JSON lines, parquet, delimited text and `.eval` are read row by row.
"""

import codecs
import csv
import json
import re
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medllm.errors import DataError
from medllm.exam.tables import Row, array_rows, json_document, json_rows

IDS = (
    "question_id", "problem_id", "id", "sample_id", "qid", "question_number", "custom_id", "number",
    "問題番号", "問題id", "設問番号", "番号",
)  # fmt: skip
"""The usual names of the column with the question's id, the likeliest first."""
LARGEST_DOCUMENT = 256 * 1024 * 1024
"""Bytes of the largest JSON document; it is one value, so it has to be in memory whole."""
_LONGEST_CELL = 16 * 1024 * 1024
_ZSTD = 93
"""The number of zstd among a zip file's methods."""
_LOCAL_HEADER = 30
"""Bytes of the header before a file in a zip, which ends with the lengths of the name and the extra field."""
_FORMATS = "JSON, JSON lines, CSV, TSV, .xlsx, parquet or .eval"
_OF_TOOLS = ("samples_*.jsonl", "details_*.parquet", "*.eval")
_LINES = (".jsonl", ".ndjson")


def files_of(path: Path) -> list[Path]:
    """Return the file, or the results files of a folder: of an evaluation, or of a tool's output at any depth."""
    if not path.exists():
        raise DataError("exam.no-such-file", f"{path} does not exist. Give a file of predictions.")
    if not path.is_dir():
        return [path]
    inner = path / "records" if (path / "records").is_dir() else path
    tables = sorted([*inner.glob("*.parquet"), *inner.glob("*.jsonl")])
    of_tools = sorted(file for pattern in _OF_TOOLS for file in path.rglob(pattern))
    others = sorted(file for file in path.iterdir() if file.suffix.lower() in (".csv", ".tsv", ".xlsx", ".json"))
    if inner is not path and tables:
        return tables
    return of_tools or tables or others


def rows_of(path: Path) -> Iterator[Row]:
    """Yield the rows of one file with their places; the format is read from the content.

    Raises:
        DataError: The file is empty, of no known format, broken, or a JSON document of more than 256 MiB.
    """
    start = _start(path)
    if not start.strip():
        raise DataError("exam.empty-file", f"{path}: is empty. It should have one row per question.")
    if start.startswith(b"PAR1"):
        return _parquet_rows(path)
    if start.startswith(b"PK\x03\x04"):
        return _zip_rows(path)
    if b"\0" in start and not start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(
            "exam.unknown-file", f"{path}: is a binary file of no known format. Give {_FORMATS}; save .xls as .xlsx."
        )
    text = start.removeprefix(codecs.BOM_UTF8).lstrip()
    if path.suffix.lower() in _LINES or (text[:1] == b"{" and _first_line_is_whole(path)):
        return _line_rows(path)
    return _document(path) if text[:1] in (b"{", b"[") else _delimited_rows(path)


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(4096)
    except OSError as fault:
        raise DataError(
            "exam.unreadable", f"{path}: cannot be read ({fault.strerror}). Give a readable file."
        ) from fault


def _first_line_is_whole(path: Path) -> bool:
    """Return whether the first of several lines holds a JSON value: a file of JSON lines."""
    with path.open("rb") as file:
        filled = (line for line in file if line.strip())
        line, another = next(filled, b""), next(filled, None)
    if another is None:
        return False
    try:
        json.loads(line.removeprefix(codecs.BOM_UTF8))
    except ValueError:
        return False
    return True


def _line_rows(path: Path) -> Iterator[Row]:
    """Yield the objects of JSON lines; a line that is a whole document is opened like a document."""
    empty = True
    for place, row in json_rows(path):
        empty = False
        if _is_document(row):
            yield from _document_rows(row, path)
        else:
            yield place, row
    if empty:
        raise DataError("exam.empty-file", f"{path}: is empty. It should have one row per question.")


def _is_document(row: dict[str, Any]) -> bool:
    return any(isinstance(row.get(name), list) for name in ("results", "samples")) and ("eval" in row or len(row) < 4)


def _document(path: Path) -> Iterator[Row]:
    size = path.stat().st_size
    if size > LARGEST_DOCUMENT:
        raise DataError(
            "exam.file-too-large",
            f"{path}: {size:,} bytes of one JSON value, more than {LARGEST_DOCUMENT:,}. Write one object a line"
            " (.jsonl), which has no such limit.",
        )
    if _start(path).removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"[":
        return array_rows(path)
    return _document_rows(json_document(path), path)


def _document_rows(document: dict[str, Any], path: Path) -> Iterator[Row]:
    """Yield the rows of a results document: JMLE2026-Bench, IgakuQA119, Inspect, a list, or id to reply."""
    if isinstance(document.get("eval"), dict) and "samples" in document:
        for number, sample in enumerate(document["samples"] or [], start=1):
            yield f"{path} sample {number}", inspect_row(sample, document["eval"])
        return
    lists = [
        name for name, value in document.items() if isinstance(value, list) and value and isinstance(value[0], dict)
    ]
    if "results" in lists or len(lists) == 1:
        named = document.get("metadata")
        facts = named if isinstance(named, dict) else document
        model = facts.get("display_name") or facts.get("model") or facts.get("model_name")
        for number, item in enumerate(document["results" if "results" in lists else lists[0]], start=1):
            place = f"{path} item {number}"
            if not isinstance(item, dict):
                raise DataError("exam.not-an-object", f"{place}: is {type(item).__name__}, not an object.")
            given = {"model": model} if isinstance(model, str) else {}
            yield from ((place, given | row) for row in _answers_of(item))
        return
    if any(name in document for name in IDS):
        yield str(path), document
        return
    if document and all(isinstance(value, str | int | list) for value in document.values()):
        for name, value in document.items():
            yield f"{path} key {name}", {"question_id": name, "prediction": value}
        return
    raise DataError(
        "exam.unknown-document",
        f"{path}: has the keys {', '.join(map(str, list(document)[:12]))}, none of which holds the list of replies."
        " Put it under `results`, one object a question, with question_id and prediction.",
    )


def _answers_of(item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a row for each model's answer to a question of IgakuQA119, or the row itself."""
    answers = item.get("answers")
    if not isinstance(answers, list) or not all(isinstance(answer, dict) for answer in answers):
        yield item
        return
    question = {name: value for name, value in item.items() if name not in ("answers", "choices", "question_text")}
    yield from (question | answer for answer in answers)


def inspect_row(sample: dict[str, Any], task: dict[str, Any]) -> dict[str, Any]:
    """Return a sample of an Inspect log as a row; its epochs are the samples of a question."""
    output = sample.get("output") or {}
    replies = output.get("choices") or [{}]
    metadata = sample.get("metadata") or {}
    named = next((metadata[name] for name in ("question_id", "problem_id", "id") if name in metadata), None)
    reply = output.get("completion") or text_of(replies[0].get("message"))
    return {
        "question_id": sample.get("id") if named is None else named,
        "position": sample["id"] - 1 if named is None and isinstance(sample.get("id"), int) else None,
        "completion": reply or "",
        "model": task.get("model") or output.get("model"),
        "finish_reason": replies[0].get("stop_reason"),
        "sample": (sample.get("epoch") or 1) - 1,
        "prompt": (task.get("metadata") or {}).get("prompt"),
    }


def text_of(message: object) -> str | None:
    """Return the text of a chat message: a text, or the text parts of its content."""
    content = message.get("content") if isinstance(message, dict) else message
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)]
        return "".join(map(str, parts))
    return content if isinstance(content, str) else None


def _zip_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a workbook or of an Inspect log, which are both zip files."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if any(name.startswith("xl/") for name in names) or "content.xml" in names:
                yield from _workbook_rows(path)
                return
            samples = sorted(name for name in names if name.startswith("samples/") and name.endswith(".json"))
            if not samples:
                raise DataError(
                    "exam.unknown-file",
                    f"{path}: is a zip file with {', '.join(names[:5])}, neither a workbook nor an Inspect log with"
                    f" samples. Give {_FORMATS}.",
                )
            start = next((name for name in ("header.json", "_journal/start.json") if name in names), None)
            task = json.loads(_member(archive, start))["eval"] if start else {}
            for name in samples:
                yield f"{path} {name}", inspect_row(json.loads(_member(archive, name)), task)
    except NotImplementedError as fault:
        raise DataError(
            "exam.unknown-compression",
            f"{path}: is compressed in a way that this Python cannot read. Run `inspect log convert --to json` on it.",
        ) from fault
    except (zipfile.BadZipFile, ValueError, KeyError, OSError) as fault:
        raise DataError("exam.broken-archive", f"{path}: is broken ({fault}). Copy the whole file again.") from fault


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return a file of an archive, also one that is compressed with zstd, as Inspect does and zipfile cannot read."""
    entry = archive.getinfo(name)
    if entry.compress_type != _ZSTD or archive.fp is None:
        return archive.read(name)
    import pyarrow as pa

    archive.fp.seek(entry.header_offset + _LOCAL_HEADER - 4)
    lengths = struct.unpack("<HH", archive.fp.read(4))
    archive.fp.seek(sum(lengths), 1)
    packed = archive.fp.read(entry.compress_size)
    return bytes(pa.decompress(packed, entry.file_size, codec="zstd", asbytes=True))


def _workbook_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a workbook's first sheet that has any, under its first row that is not empty."""
    from python_calamine import CalamineError, CalamineWorkbook

    try:
        book = CalamineWorkbook.from_path(str(path))
        sheets = [book.get_sheet_by_name(name).to_python() for name in book.sheet_names]
    except CalamineError as fault:
        raise DataError("exam.broken-archive", f"{path}: is broken ({fault}). Copy the whole file again.") from fault
    filled = next((sheet for sheet in sheets if any(any(cell != "" for cell in row) for row in sheet)), None)
    if filled is None:
        raise DataError("exam.empty-file", f"{path}: is empty. It should have one row per question.")
    rows = ((number, row) for number, row in enumerate(filled, start=1) if any(cell != "" for cell in row))
    headings = [str(cell).strip() for cell in next(rows)[1]]
    for number, row in rows:
        cells = [int(cell) if isinstance(cell, float) and cell.is_integer() else cell for cell in row]
        yield f"{path} row {number}", {name: cell for name, cell in zip(headings, cells, strict=False) if name}


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        file = pq.ParquetFile(path)
        for batch in file.iter_batches(batch_size=256):
            for row in batch.to_pylist():
                number += 1
                yield f"{path} row {number}", row
    except (pa.ArrowInvalid, OSError) as fault:
        raise DataError(
            "exam.not-parquet", f"{path}: is not a parquet file ({fault}). Write it with medllm, pandas or pyarrow."
        ) from fault
    if not number:
        raise DataError("exam.empty-file", f"{path}: is empty. It should have one row per question.")


def _delimited_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of CSV, TSV or semicolon-separated text, in UTF-8, UTF-16 or Excel's Shift_JIS."""
    csv.field_size_limit(_LONGEST_CELL)
    with path.open(encoding=_encoding(path), newline="") as file:
        first = next((line for line in file if line.strip()), "")
        file.seek(0)
        delimiter = max("\t,;|", key=lambda sign: (len(re.sub(r'"[^"]*"', "", first).split(sign)), sign == ","))
        reader = csv.DictReader(file, delimiter=delimiter, strict=True)
        try:
            for row in reader:
                place = f"{path} line {reader.line_num}"
                if None in row or None in row.values():
                    raise DataError(
                        "exam.wrong-number-of-columns",
                        f"{place}: does not have the {len(reader.fieldnames or ())} columns of the first line"
                        f" ({', '.join(map(str, (reader.fieldnames or ())[:8]))}). Put texts with a"
                        f" {'tab' if delimiter == chr(9) else delimiter} in quotation marks, or give the columns"
                        " of ids and answers alone.",
                    )
                yield place, {str(name).strip(): cell for name, cell in row.items()}
        except csv.Error as fault:
            raise DataError(
                "exam.broken-csv",
                f"{path} line {reader.line_num}: broken CSV ({fault}). Put texts with commas or line breaks in"
                " quotation marks.",
            ) from fault


def _encoding(path: Path) -> str:
    """Return the encoding in which the whole file can be read: UTF-8, UTF-16 with its mark, or Shift_JIS of Excel."""
    if _start(path).startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    for name in ("utf-8-sig", "cp932"):
        decoder = codecs.getincrementaldecoder(name)()
        try:
            with path.open("rb") as file:
                while part := file.read(1 << 20):
                    decoder.decode(part)
                decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            continue
        return name
    raise DataError("exam.not-utf-8", f"{path}: is neither UTF-8 nor Shift_JIS. Save the file as UTF-8.")
