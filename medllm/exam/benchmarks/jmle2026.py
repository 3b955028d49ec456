"""JMLE2026-Bench, the 120th medical exam: choices are cut out of the question text, vignettes are part of it."""

import re
from datetime import date
from pathlib import Path
from typing import Any

from medllm.errors import DataError
from medllm.exam.benchmarks.fields import numeric_gold, text_of, without_announcement
from medllm.exam.extract.completion import normal
from medllm.exam.question import Question
from medllm.exam.tables import array_rows

EXAM_DATE = date(2026, 2, 7)

_LINE = re.compile(r"^[\s　]*([a-hａ-ｈ])[\s　.:]+(\S.*)$", re.M)
_TABLE_ROW = re.compile(r"^\|[\s　]*([a-h])[\s　]*\|(.*)\|?$", re.M)
_NUMBER = re.compile(r"^\s*\d+[\s　]+")
_DIGIT_TABLE = re.compile(r"\n[\s　]*①[\s　]*②.*\Z", re.S)


def read(folder: Path, name: str) -> list[Question]:
    """Read the 400 questions in their published order."""
    file = folder / "jmle2026_dataset.json"
    return [_question(row, place, name) for place, row in array_rows(file)] if file.exists() else []


def _question(row: dict[str, Any], place: str, name: str) -> Question:
    question_id = text_of(row, "question_id", place)
    numeric = row["question_type"] == "calculation"
    text = _NUMBER.sub("", text_of(row, "question_text", place))
    text, choices = (_DIGIT_TABLE.sub("", text), ()) if numeric else _cut(text, place)
    clinical = row["block"] in "BE" and int(row["number"]) > 25
    serial = row.get("serial_group") or {}
    return Question(
        question_id=question_id,
        benchmark=name,
        text=text.strip(),
        choices=choices,
        gold=numeric_gold(row["answer"][0], text) if numeric else (frozenset(row["answer"]),),
        key=tuple(row["answer"]),
        exam_date=EXAM_DATE,
        year=EXAM_DATE.year,
        section=row["block"],
        numeric=numeric,
        points=3 if clinical else 1,
        required=row["block"] in "BE",
        image=row["requires_image"],
        vignette_id=serial.get("group_id"),
        context=without_announcement(serial["context_text"]) if serial else None,
        language="ja",
    )


def _cut(text: str, place: str) -> tuple[str, tuple[str, ...]]:
    """Split a text into the question and its choices, given on separate lines or as the rows of a table at the end."""
    for pattern in (_LINE, _TABLE_ROW):
        rows = list(pattern.finditer(text))
        letters = "".join(normal(row[1]) for row in rows)
        if len(rows) >= 4 and "abcdefgh".startswith(letters):
            body = text if pattern is _TABLE_ROW else text[: rows[0].start()]
            return body, tuple(row[2].strip(" 　|") for row in rows)
    raise DataError(
        "exam.no-choices",
        f"{place}: has no list of choices a, b, c ... in its text. Compare it with the published file.",
    )
