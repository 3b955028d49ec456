"""Exams of your own: JSON lines with documented columns, checked row by row."""

from datetime import date
from pathlib import Path
from typing import Any

from medllm.errors import DataError
from medllm.exam.benchmarks.fields import text_of
from medllm.exam.question import LETTERS, Question
from medllm.exam.rows import table_rows

COLUMNS = (
    "question_id", "text", "choices", "answer", "accepted", "exam_date", "year", "section", "points", "required",
    "image", "category", "human_accuracy", "prohibited", "explanation", "group", "context", "language",
)  # fmt: skip
"""The columns an exam of your own may have; docs/exam.md says what each means."""

_NEEDED = "question_id, text, choices (empty for a number) and answer"


def read(folder: Path, name: str) -> list[Question]:
    """The questions of a JSONL (or parquet) file, or of all such files in a folder but exemplars.jsonl."""
    if folder.is_file():
        files = [folder]
    else:
        found = (*folder.glob("*.jsonl"), *folder.glob("questions/*.parquet"), *folder.glob("*.parquet"))
        files = sorted(file for file in found if file.name != "exemplars.jsonl")
    if not files:
        raise DataError(
            f"{folder}: holds no exam named {name}. Put a *.jsonl there with the columns {_NEEDED};"
            " docs/exam.md lists all columns, `medllm score --list` the exams that are built in."
        )
    return [_question(row, place, name) for file in files for place, row in table_rows(file)]


def exemplars(folder: Path, name: str) -> list[Question]:
    """The worked examples in exemplars.jsonl beside the exam, or none."""
    file = folder / "exemplars.jsonl"
    return [_question(row, place, f"{name}-exemplars") for place, row in table_rows(file)] if file.exists() else []


def _question(row: dict[str, Any], place: str, name: str) -> Question:
    unknown = sorted(set(row) - set(COLUMNS))
    if unknown:
        raise DataError(f"{place}: unknown column {', '.join(unknown)}. The columns are {', '.join(COLUMNS)}.")
    choices = row.get("choices")
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        raise DataError(f"{place}: choices is {choices!r}. Give a list of texts, empty for a numeric question.")
    if len(choices) > len(LETTERS):
        raise DataError(f"{place}: has {len(choices)} choices. At most {len(LETTERS)} ({LETTERS}) can be asked.")
    numeric = not choices
    accepted = [row.get("answer"), *(row.get("accepted") or [])]
    gold = tuple(_answer(answer, place, numeric=numeric) for answer in accepted)
    given = {key: row[key] for key in _PASSED if row.get(key) is not None}
    try:
        return Question(
            question_id=text_of(row, "question_id", place),
            benchmark=name,
            text=text_of(row, "text", place),
            choices=tuple(choices),
            gold=gold,
            key=tuple(sorted(gold[0])),
            exam_date=_date(row.get("exam_date"), place),
            numeric=numeric,
            prohibited=frozenset(row.get("prohibited") or ()),
            **given,
        )
    except DataError as fault:
        raise DataError(f"{place}: {fault}") from fault


_PASSED = (
    "year", "section", "points", "required", "image", "category", "human_accuracy", "explanation", "group", "context",
    "language",
)  # fmt: skip


def _answer(value: object, place: str, *, numeric: bool) -> frozenset[str]:
    """An answer cell: letters as a list or as "b,d"; a number as itself or as text."""
    if numeric and isinstance(value, int | float | str) and not isinstance(value, bool):
        return frozenset({str(value).strip()})
    letters = value.split(",") if isinstance(value, str) else value
    if not isinstance(letters, list) or not letters or not all(isinstance(letter, str) for letter in letters):
        raise DataError(f'{place}: answer is {value!r}. Give letters, as ["b", "d"] or "b,d".')
    return frozenset(letter.strip().lower() for letter in letters)


def _date(value: object, place: str) -> date | None:
    """An ISO day, or a parquet date."""
    if value is None or isinstance(value, date):
        return value
    try:
        return date.fromisoformat(str(value))
    except ValueError as fault:
        raise DataError(f"{place}: exam_date is {value!r}. Write it as YYYY-MM-DD.") from fault
