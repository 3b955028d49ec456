"""Reads a spreadsheet, CSV or JSON file as people have it: rows of cells with the number of each row in its file."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medllm.corpus.documents import UnreadableError
from medllm.corpus.read.raw_files import decode
from medllm.errors import DataError

WORKBOOKS = (".xlsx", ".xlsm", ".xls", ".xlsb", ".ods")
LARGEST = 256 * 1024 * 1024
"""Bytes of the largest file that is read: an exam of ten thousand questions has some 20 MB."""
MOST_TITLE_ROWS = 10
"""Rows that may come before the headings: a title, a date, an empty line."""


@dataclass(frozen=True)
class Sheet:
    """A table of cells under their headings."""

    place: str
    """File, and sheet of a workbook."""
    headings: tuple[str, ...]
    rows: tuple[tuple[int, tuple[Any, ...]], ...]
    """Row number in the file (from 1) and the cells, as many as there are headings."""

    def column(self, heading: str) -> list[Any]:
        """Return the cells under a heading."""
        at = self.headings.index(heading)
        return [cells[at] for _, cells in self.rows]


def read_sheet(path: Path, name: str | None = None) -> Sheet:
    """Read a file: .xlsx, .xls, .ods, .csv, .tsv, .json or .jsonl; `name` selects a sheet of a workbook.

    Raises:
        DataError: The file is absent, too large, of another kind, broken, or without rows.
    """
    if not path.is_file():
        raise DataError("exam.no-such-file", f"{path}: there is no such file. Name a .xlsx, .csv or .json file.")
    if path.stat().st_size > LARGEST:
        raise DataError(
            "exam.file-too-large",
            f"{path}: {path.stat().st_size:,} bytes, more than {LARGEST:,}. Cut the exam into several files.",
        )
    kind = path.suffix.lower()
    if kind in WORKBOOKS:
        place, rows = _workbook_rows(path, name)
    elif kind in (".csv", ".tsv", ".txt"):
        place, rows = str(path), _text_rows(path)
    elif kind in (".json", ".jsonl"):
        return _object_sheet(path)
    else:
        raise DataError(
            "exam.unknown-table-format",
            f"{path}: {kind or 'a file without an ending'} is no table. Save it as .xlsx, .csv or .json.",
        )
    return _under_headings(place, rows)


def _workbook_rows(path: Path, name: str | None) -> tuple[str, list[tuple[int, list[Any]]]]:
    from python_calamine import CalamineError, CalamineWorkbook

    try:
        book = CalamineWorkbook.from_path(str(path))
        names = book.sheet_names
        if name is not None and name not in names:
            raise DataError(
                "exam.unknown-sheet", f"{path}: there is no sheet `{name}`. Its sheets are {', '.join(names)}."
            )
        sheets = {
            sheet_name: book.get_sheet_by_name(sheet_name).to_python(skip_empty_area=False)
            for sheet_name in ([name] if name else names)
        }
    except (CalamineError, OSError, ValueError) as fault:
        raise DataError(
            "exam.broken-workbook", f"{path}: the workbook cannot be read ({fault}). Save it again as .xlsx, or as CSV."
        ) from fault
    filled = [sheet for sheet, rows in sheets.items() if any(any(map(_filled, row)) for row in rows)]
    if len(filled) > 1:
        raise DataError(
            "exam.several-sheets",
            f"{path}: has {len(filled)} sheets with content ({', '.join(filled)}). Select one with --sheet.",
        )
    chosen = filled[0] if filled else (name or names[0])
    return f"{path} sheet {chosen}", [(number, list(row)) for number, row in enumerate(sheets[chosen], start=1)]


def cell_text(cell: Any) -> str:  # noqa: ANN401  any cell
    """Write a cell as text without blanks around it; a whole number has no point, an empty cell is "".

    >>> cell_text(3.0), cell_text(" 肺炎 "), cell_text(None)
    ('3', '肺炎', '')
    """
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    return "" if cell is None else str(cell).strip()


def _decoded(path: Path) -> str:
    try:
        return decode(path.read_bytes()).removeprefix("\ufeff")
    except UnreadableError as fault:
        raise DataError(
            "exam.not-utf-8", f"{path}: the text cannot be decoded ({fault}). Save the file as UTF-8."
        ) from fault


def _text_rows(path: Path) -> list[tuple[int, list[Any]]]:
    text = _decoded(path)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else _delimiter(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    rows: list[tuple[int, list[Any]]] = []
    try:
        first = 1
        for row in reader:
            rows.append((first, list(row)))
            first = reader.line_num + 1
    except csv.Error as fault:
        raise DataError(
            "exam.broken-csv", f"{path} line {reader.line_num}: broken CSV ({fault}). Save the table again."
        ) from fault
    return rows


def _delimiter(text: str) -> str:
    """Return the sign between cells: of comma, tab and semicolon the one that cuts the first full line most often."""
    head = next((line for line in text.splitlines() if any(sign in line for sign in ",\t;")), "")
    return max(",\t;", key=head.count)


def _object_sheet(path: Path) -> Sheet:
    objects = list(_objects(path))
    headings = tuple(dict.fromkeys(key for _, fields in objects for key in fields))
    rows = tuple((number, tuple(fields.get(key) for key in headings)) for number, fields in objects)
    if not rows:
        raise _empty(str(path))
    return Sheet(str(path), headings, rows)


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    text = _decoded(path)
    if path.suffix.lower() == ".jsonl":
        listed: list[tuple[int, Any]] = [
            (number, _json(line, f"{path} line {number}"))
            for number, line in enumerate(text.splitlines(), start=1)
            if line.strip()
        ]
    else:
        whole = _json(text, str(path))
        lists = [table for table in whole.values() if isinstance(table, list)] if isinstance(whole, dict) else [whole]
        if len(lists) != 1 or not isinstance(lists[0], list):
            raise DataError(
                "exam.no-list-of-questions",
                f"{path}: should hold one list of questions, or an object with one such list. Write an object each.",
            )
        listed = list(enumerate(lists[0], start=1))
    for number, fields in listed:
        if not isinstance(fields, dict):
            raise DataError(
                "exam.row-is-no-object",
                f"{path} row {number}: is {type(fields).__name__}, not an object. Write one JSON object a question.",
            )
        yield number, fields


def _json(text: str, place: str) -> Any:  # noqa: ANN401  any JSON value
    try:
        return json.loads(text)
    except json.JSONDecodeError as fault:
        raise DataError(
            "exam.broken-json",
            f"{place}: broken JSON at line {fault.lineno}, column {fault.colno} ({fault.msg}). Correct it there.",
        ) from fault


def _under_headings(place: str, rows: list[tuple[int, list[Any]]]) -> Sheet:
    """Find the headings: the first row that has the most filled cells among the first ten."""
    filled = [(number, cells) for number, cells in rows if any(map(_filled, cells))]
    if len(filled) < 2:
        raise _empty(place)
    first = max(filled[:MOST_TITLE_ROWS], key=lambda row: (sum(map(_filled, row[1])) >= 2, -row[0]))
    width = max((at for at, cell in enumerate(first[1], start=1) if _filled(cell)), default=0)
    headings = [str(cell).strip() if _filled(cell) else f"column {at}" for at, cell in enumerate(first[1][:width], 1)]
    twice = sorted({heading for heading in headings if headings.count(heading) > 1})
    if twice:
        raise DataError(
            "exam.heading-twice", f"{place} row {first[0]}: the heading {', '.join(twice)} occurs twice. Rename one."
        )
    body = [(number, cells) for number, cells in filled if number > first[0]]
    wide = [(number, len(cells)) for number, cells in body if any(map(_filled, cells[width:]))]
    if wide:
        listed = ", ".join(f"{number} ({count} cells)" for number, count in wide[:5])
        raise DataError(
            "exam.too-many-cells",
            f"{place}: {len(wide)} rows have more cells than the {width} headings: row {listed}. A comma inside a text"
            ' must be in quotation marks ("..."); save the table as .xlsx, or quote the texts.',
        )
    return Sheet(
        place, tuple(headings), tuple((number, tuple((cells + [None] * width)[:width])) for number, cells in body)
    )


def _filled(cell: Any) -> bool:  # noqa: ANN401  any cell
    return cell_text(cell) != ""


def _empty(place: str) -> DataError:
    return DataError("exam.empty-table", f"{place}: there is no row below the headings. Write one row a question.")
