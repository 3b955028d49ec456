"""Turns the rows of a table into questions of an own exam, with every fault of every row."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any

from medllm.corpus.documents import read_date
from medllm.errors import DataError
from medllm.exam.benchmarks.custom import read_question
from medllm.exam.extract.answer import unmatched_answers
from medllm.exam.question import LETTERS
from medllm.exam_import.choices import (
    ChoicesFault,
    Kana,
    KeyFault,
    KeyForm,
    are_labelled,
    are_places,
    choices_of,
    key_form,
    read_key,
    split_labelled,
)
from medllm.exam_import.columns import Columns
from medllm.exam_import.sheet import Sheet, cell_text

_TRUE = {"1", "true", "yes", "y", "有", "あり", "○", "〇", "◯", "必修", "はい"}
_FALSE = {"", "0", "false", "no", "n", "無", "なし", "×", "-", "いいえ", "一般"}
_TEXT_FIELDS = ("section", "category", "explanation", "group", "context")
PLACE = "row"
"""What the reader of own exams calls the place of a row; a fault has the number of the row instead."""
_YEAR = re.compile(r"(?:19|20)\d\d")
_NAMED = re.compile(
    r"(?:正解|正答|解答|答え?)\s*[はが:]?\s*(?P<key>[1-9]|[ア-オイロハニホ](?![ァ-ヶー]))(?![0-9.])|選択肢\s*(?P<choice>[1-9])(?![0-9])"
    r"|(?<![0-9.])(?P<verdict>[1-9])\s*(?:番(?!目)|が正し|が正解|が誤|は正し|は正解|は誤|は間違|は不適|以外)"
)
"""A choice that an explanation names by a number or by kana, as 正解は3 or 2は誤り (in the signs of NFKC)."""


@dataclass(frozen=True)
class RowFault:
    """A row that is no question: its number in the file and the cause with its remedy."""

    row: int
    text: str


@dataclass(frozen=True)
class ImportedExam:
    """Questions in the columns of an own exam, and what was found on the way."""

    questions: tuple[dict[str, Any], ...]
    faults: tuple[RowFault, ...]
    notes: tuple[str, ...]

    def years(self) -> dict[int, int]:
        """Count the questions by year."""
        return dict(sorted(Counter(row["year"] for row in self.questions if "year" in row).items()))


def import_rows(
    sheet: Sheet, columns: Columns, *, first_choice: int | None = None, kana: Kana | None = None
) -> ImportedExam:
    """Read every row; a row with a fault is listed, not read.

    `first_choice` and `kana` decide how keys count, where the keys themselves leave it open.

    Raises:
        DataError: The keys of the whole table can be read in two ways.
    """
    keys = sheet.column(columns.fields["answer"])
    with_choices = bool(columns.choices) or any(
        split_labelled(str(cell)) for cell in sheet.column(columns.fields["text"])
    )
    try:
        form = key_form(keys if with_choices else [], first=first_choice, kana=kana)
    except KeyFault as fault:
        raise DataError(
            "exam.ambiguous-keys",
            f"{sheet.place}, heading {columns.fields['answer']}: the keys can be read in two ways: {fault}.",
        ) from None
    rows = [(number, dict(zip(sheet.headings, cells, strict=True))) for number, cells in sheet.rows]
    labelled = are_labelled([row[choice] for choice in columns.choices] for _, row in rows)
    form = replace(form, places=are_places(list(_keys_and_choices(rows, columns)), form))
    questions, faults, images = [], [], []
    for number, row in rows:
        try:
            question = _question(row, columns, form, labelled=labelled)
            questions.append((number, question))
            if question.get("image") and not _is_flag(row[columns.fields["image"]]):
                images.append(str(row[columns.fields["image"]]))
        except (KeyFault, ChoicesFault, _CellFault) as fault:
            faults.append(RowFault(number, f"{fault}."))
    notes = _number_questions(questions, faults)
    if images:
        notes.append(f"{len(images)} questions name images, which no model is shown: {', '.join(images[:5])}.")
    if named := [number for number, question in questions if _names_choices_otherwise(question)]:
        notes.append(
            f"{len(named)} explanations name choices by number or kana (first: row {named[0]}), but the choices are "
            "asked as a, b, c. As worked examples and in preference pairs such an explanation contradicts its key: "
            "write the letters in the file."
        )
    whole = [question for number, question in questions if number not in {fault.row for fault in faults}]
    return ImportedExam(tuple(whole), tuple(sorted(faults, key=lambda fault: fault.row)), tuple(notes))


def _names_choices_otherwise(question: Mapping[str, Any]) -> bool:
    """Return whether an explanation names one of the choices by a number or by kana."""
    text, count = unicodedata.normalize("NFKC", question.get("explanation", "")), len(question["choices"])
    names = [next(filter(None, match.groups())) for match in _NAMED.finditer(text)] if count else []
    return any(not name.isdecimal() or int(name) <= count for name in names)


def _keys_and_choices(rows: list[tuple[int, dict[str, Any]]], columns: Columns) -> Iterator[tuple[Any, list[str]]]:
    for _, row in rows:
        with suppress(ChoicesFault):
            yield row[columns.fields["answer"]], choices_of([row[choice] for choice in columns.choices])


class _CellFault(ValueError):
    """A cell that cannot be read; the text names column, value and remedy without the row."""


def _question(row: Mapping[str, Any], columns: Columns, form: KeyForm, *, labelled: bool) -> dict[str, Any]:
    cells = {name: row[heading] for name, heading in columns.fields.items()}
    text = cell_text(cells["text"])
    if not text:
        raise _CellFault(f"{columns.fields['text']} is empty. Write the question, or delete the row")
    choices = choices_of([row[choice] for choice in columns.choices], labelled=labelled) if columns.choices else []
    if not choices and (cut := split_labelled(text)) is not None and cut[0]:
        text, choices = cut
    if len(choices) == 1 or len(choices) > len(LETTERS):
        raise _CellFault(f"{len(choices)} choices were found. A question has 2 to {len(LETTERS)}, or none for a number")
    accepted = read_key(cells["answer"], choices, form)
    question: dict[str, Any] = {"text": text, "choices": choices, "answer": accepted[0]}
    if accepted[1:]:
        question["accepted"] = accepted[1:]
    question |= {name: cell_text(cells[name]) for name in _TEXT_FIELDS if name in cells and cell_text(cells[name])}
    question |= {
        name: True for name in ("required", "image") if name in cells and _flag(cells[name], columns.fields[name])
    }
    if cell_text(cells.get("points")) not in ("", "1"):
        question["points"] = _whole(cells["points"], columns.fields["points"])
    if "prohibited" in cells and cell_text(cells["prohibited"]):
        question["prohibited"] = read_key(cells["prohibited"], choices, form)[0].split(",")
    if "language" in cells and cell_text(cells["language"]):
        question["language"] = cell_text(cells["language"])[:2].lower()
    question |= _dates(cells, columns)
    if cell_text(cells.get("question_id")):
        question["question_id"] = cell_text(cells["question_id"])
    _answerable(question)
    return question


def _dates(cells: Mapping[str, Any], columns: Columns) -> dict[str, Any]:
    dates: dict[str, Any] = {}
    for name in ("exam_date", "year"):
        cell = cells.get(name)
        if cell is None or not cell_text(cell):
            continue
        try:
            written = cell_text(cell).removesuffix("度") if not isinstance(cell, date) else cell
            day = cell.date() if isinstance(cell, datetime) else read_date(written)
        except DataError:
            day = None
        if day is None:
            year = _YEAR.search(cell_text(cell))
            if year is None or name == "exam_date":
                raise _CellFault(
                    f"{columns.fields[name]} is {cell_text(cell)!r}, which is no {name.replace('exam_', '')}"
                )
            dates["year"] = int(year[0])
        elif name == "exam_date":
            dates["exam_date"], dates["year"] = day.isoformat(), dates.get("year", day.year)
        else:
            dates["year"] = day.year
    return dates


def _answerable(question: Mapping[str, Any]) -> None:
    """Refuse what the reader of own exams refuses, and a key that the parser does not find in a plain right reply."""
    try:
        asked = read_question({**question, "question_id": "row"}, PLACE, "import")
    except DataError as fault:
        raise _CellFault(str(fault).removeprefix(f"{PLACE}: ").rstrip(".")) from None
    if unmatched_answers(asked):
        raise _CellFault(f"no reply can match the key {question['answer']}. Correct the key or the choices")


def _number_questions(questions: list[tuple[int, dict[str, Any]]], faults: list[RowFault]) -> list[str]:
    """Give every question an id of its own; return what was changed."""
    if not any("question_id" in question for _, question in questions):
        for number, question in questions:
            question["question_id"] = f"row{number}"
        return ["no column has ids: the questions are named by their rows (row2, row3, ...)."]
    ids = Counter(question.get("question_id") for _, question in questions)
    notes = []
    if max(ids.values()) > 1 and all("year" in question and "question_id" in question for _, question in questions):
        for _, question in questions:
            parts = (question["year"], question.get("section"), question["question_id"])
            question["question_id"] = "-".join(str(part) for part in parts if part is not None)
        ids = Counter(question["question_id"] for _, question in questions)
        notes.append("ids occur again in other years: each id is written with its year (and section).")
    first: dict[str, int] = {}
    for number, question in questions:
        name = question.get("question_id")
        if name is None:
            faults.append(RowFault(number, "has no id, but other rows have one. Give it one."))
        elif name in first:
            faults.append(RowFault(number, f"the id {name} occurs twice, first in row {first[name]}. Change one."))
        else:
            first[name] = number
    return notes


def _whole(cell: Any, heading: str) -> int:  # noqa: ANN401  any cell
    text = cell_text(cell).removesuffix("点")
    if text == "0":
        raise _CellFault(f"{heading} is 0: a question that is not scored cannot be asked. Leave it out")
    if not text.isdecimal():
        raise _CellFault(f"{heading} is {text!r}, which is no whole number from 1. Correct it")
    return int(text)


def _is_flag(cell: Any) -> bool:  # noqa: ANN401  any cell
    return isinstance(cell, bool) or cell_text(cell).lower() in _TRUE | _FALSE


def _flag(cell: Any, heading: str) -> bool:  # noqa: ANN401  any cell
    if isinstance(cell, bool):
        return cell
    text = cell_text(cell).lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    if heading and re.search(r"\.(?:png|jpe?g|gif|bmp|tiff?|svg|pdf)\b|図|写真|別冊|http", text):
        return True
    raise _CellFault(f"{heading} is {cell_text(cell)!r}, which is neither yes nor no. Write 1 or 0")
