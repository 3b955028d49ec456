"""Custom exams: JSON lines with documented columns, checked row by row."""

import re
from pathlib import Path
from typing import Any

from medllm.errors import DataError
from medllm.exam.benchmarks.cells import Cells
from medllm.exam.question import LETTERS, Question, Translation
from medllm.exam.tables import table_rows

COLUMNS = (
    "question_id", "text", "choices", "answer", "accepted", "exam_date", "year", "section", "points", "required",
    "image", "category", "human_accuracy", "prohibited", "explanation", "group", "context", "language",
)  # fmt: skip
"""The columns a custom exam may have; docs/evaluation.md explains each."""

_NEEDED = "question_id, text, choices (empty for a number) and answer"
MOST_POINTS = 1_000
"""The highest accepted value of `points`: a larger number is a typing error."""


def read(folder: Path, name: str) -> list[Question]:
    """Read the questions of a JSONL (or parquet) file, or of all such files in a folder except exemplars.jsonl.

    Raises:
        DataError: No file exists, or a row is invalid; the message names file, line, column and remedy.
    """
    if folder.is_file():
        files = [folder]
    else:
        found = (*folder.glob("*.jsonl"), *folder.glob("questions/*.parquet"), *folder.glob("*.parquet"))
        files = sorted(file for file in found if file.name != "exemplars.jsonl")
    if not files:
        raise DataError(
            "exam.no-exam-in-folder",
            f"{folder}: holds no exam named {name}. Put a *.jsonl there with the columns {_NEEDED};"
            " docs/evaluation.md lists all columns, `medllm score --list` the exams that are built in.",
        )
    return _questions(files, name)


_TRANSLATED = re.compile(r"(text|choices)_([a-z]{2})")


def translations(folder: Path) -> list[Translation]:
    """Read a custom exam's translations: columns `text_LANGUAGE`, `choices_LANGUAGE`, and `translations/*.jsonl`."""
    files = [folder] if folder.is_file() else sorted(folder.glob("*.jsonl"))
    beside = sorted(folder.glob("translations/*.jsonl")) if folder.is_dir() else []
    found = []
    for file in [*(file for file in files if file.name != "exemplars.jsonl"), *beside]:
        for place, row in table_rows(file):
            texts = {
                code[2]: row[column] for column in row if (code := _TRANSLATED.fullmatch(column)) and code[1] == "text"
            }
            if file in beside:
                texts["translated"] = row.get("text")
            for language, text in texts.items():
                choices = row.get("choices" if language == "translated" else f"choices_{language}") or ()
                if not isinstance(text, str) or isinstance(choices, str):
                    raise DataError(
                        "exam.bad-translation", f"{place}: a translation needs a text and a list of choices."
                    )
                language = str(row.get("language") or file.stem) if language == "translated" else language
                found.append(Translation(str(row.get("question_id")), language, text, tuple(map(str, choices))))
    return found


def exemplars(folder: Path, name: str) -> list[Question]:
    """Read the worked examples in exemplars.jsonl beside the exam; an empty list where that file is absent."""
    file = folder / "exemplars.jsonl"
    return _questions([file], f"{name}-exemplars") if file.exists() else []


def _questions(files: list[Path], name: str) -> list[Question]:
    """Return all rows as questions; an id that occurs twice raises an error that names both places."""
    first: dict[str, str] = {}
    questions = []
    for place, row in (row for file in files for row in table_rows(file)):
        question = _question(row, place, name)
        if question.question_id in first:
            raise DataError(
                "exam.duplicate-id",
                f"{place}: question_id: the id {question.question_id} occurs twice, first at"
                f" {first[question.question_id]}. Give every question its own id.",
            )
        first[question.question_id] = place
        questions.append(question)
    return questions


def _question(row: dict[str, Any], place: str, name: str) -> Question:
    unknown = sorted(one for one in set(row) - set(COLUMNS) if not _TRANSLATED.fullmatch(one))
    if unknown:
        raise DataError(
            "exam.unknown-column",
            f"{place}: the column is unknown: {', '.join(unknown)}. The columns are {', '.join(COLUMNS)}.",
        )
    cells = Cells(row, place)
    choices = cells.choices(LETTERS)
    letters = LETTERS[: len(choices)] if choices else None
    question_id = cells.needed_text("question_id")
    where = f"{name} question {question_id}"
    gold = cells.answers(letters, where)
    required, image = cells.flag("required"), cells.flag("image")
    return Question(
        question_id=question_id,
        benchmark=name,
        text=cells.needed_text("text"),
        choices=choices,
        gold=gold,
        key=tuple(sorted(gold[0])),
        exam_date=cells.day("exam_date"),
        year=cells.whole("year", 1, 9999),
        section=cells.text("section"),
        numeric=letters is None,
        points=cells.whole("points", 1, MOST_POINTS) or 1,
        required=required,
        image=image,
        category=cells.text("category"),
        human_accuracy=cells.share("human_accuracy"),
        prohibited=cells.prohibited(letters, gold, where),
        explanation=cells.text("explanation"),
        vignette_id=cells.text("group"),
        context=cells.text("context"),
        language=cells.language("language"),
    )
