"""Custom exams: JSON lines with documented columns, each cell of a row checked for type and range."""

import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from medllm.errors import DataError
from medllm.exam.question import LETTERS, Language, Question, Translation
from medllm.exam.tables import table_rows

IMPORT_REPORT = "import.json"
"""The report that `medllm exam import` writes beside an exam's questions; it marks a folder as imported."""
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_NUMBER = re.compile(r"[+-]?(?:\d+(?:,\d{3})*(?:\.\d*)?|\.\d+)")


@dataclass(frozen=True, slots=True)
class Cells:
    """A row and its place; each method reads one column, or raises DataError with place, column, value and remedy.

    An absent or null column counts as left out; a value of another type is refused, never converted by a guess.
    """

    row: Mapping[str, Any]
    place: str

    def cell(self, column: str) -> str:
        """Write a cell's place, column and value, with which an error about it starts."""
        return f"{self.place}: {column} is {_shown(self.row.get(column))}."

    def text(self, column: str) -> str | None:
        """Return a text that may be left out; an empty one counts as left out."""
        value = self.row.get(column)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if value is None or value == "":
            return None
        if not _is_text(value):
            raise DataError("exam.not-text", f"{self.cell(column)} Write it as text, or leave it out.")
        return str(value)

    def needed_text(self, column: str) -> str:
        """Return a text that every question has; a whole number counts as its digits."""
        value = self.text(column) if self.row.get(column) is not None else None
        if value is None or not value.strip():
            raise DataError("exam.missing-text", f"{self.cell(column)} Every question needs it as text.")
        return value

    def flag(self, column: str) -> bool:
        """Return true or false; false when left out."""
        value = self.row.get(column)
        if value is not None and not isinstance(value, bool):
            raise DataError(
                "exam.not-true-or-false", f"{self.cell(column)} Write true or false, without quotation marks."
            )
        return bool(value)

    def whole(self, column: str, least: int, most: int) -> int | None:
        """Return a whole number between two bounds; None when left out."""
        value = self.row.get(column)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise DataError(
                "exam.out-of-range",
                f"{self.cell(column)} Write a whole number from {least} to {most:,}, without quotation marks.",
            )
        return value

    def share(self, column: str) -> float | None:
        """Return a number from 0 to 1; None when left out."""
        value = self.row.get(column)
        if value is None:
            return None
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
            raise DataError(
                "exam.out-of-range", f"{self.cell(column)} Write a number from 0 to 1, such as 0.85 for 85 %."
            )
        return float(value)

    def day(self, column: str) -> date | None:
        """Return a day, as YYYY-MM-DD or as a parquet date; None when left out."""
        value = self.row.get(column)
        if isinstance(value, datetime):
            return value.date()
        if value is None or isinstance(value, date):
            return value
        try:
            return date.fromisoformat(value if isinstance(value, str) and _DAY.fullmatch(value) else "")
        except ValueError:
            raise DataError("exam.not-a-day", f"{self.cell(column)} Write it as YYYY-MM-DD.") from None

    def language(self, column: str) -> Language:
        """Return the language of the question, Japanese when left out."""
        value = self.row.get(column)
        if value is None or value == "ja":
            return "ja"
        if value != "en":
            raise DataError("exam.unknown-language", f"{self.cell(column)} It can be ja or en.")
        return "en"

    def choices(self, letters: str) -> tuple[str, ...]:
        """Return the texts of the choices: none for a number, else at least two that differ."""
        choices = self.row.get("choices")
        if not isinstance(choices, list) or not all(_is_text(choice) for choice in choices):
            raise DataError(
                "exam.choices-not-a-list", f"{self.cell('choices')} Give a list of texts, empty for a numeric question."
            )
        if len(choices) > len(letters):
            raise DataError(
                "exam.too-many-choices",
                f"{self.place}: has {len(choices)} choices, which is too many. At most {len(letters)} ({letters})"
                " can be asked.",
            )
        if len(choices) == 1:
            raise DataError(
                "exam.one-choice", f"{self.cell('choices')} Give at least two choices, or none for a numeric question."
            )
        if not all(choice.strip() for choice in choices):
            raise DataError("exam.empty-choice", f"{self.cell('choices')} A choice is empty: give each its text.")
        plain = [unicodedata.normalize("NFKC", choice).strip() for choice in choices]
        if len(set(plain)) < len(plain):
            raise DataError(
                "exam.equal-choices",
                f"{self.cell('choices')} Two choices are the same text: the letters cannot be distinguished."
                " Correct one.",
            )
        return tuple(choices)

    def answers(self, letters: str | None, where: str) -> tuple[frozenset[str], ...]:
        """Return the key and the further accepted answers: sets of letters, or numbers where `letters` is None."""
        accepted = self.row.get("accepted")
        if accepted is not None and not isinstance(accepted, list):
            raise DataError(
                "exam.accepted-not-a-list", f'{self.cell("accepted")} Give a list of answers, such as ["b", "c,d"].'
            )
        if self.row.get("answer") in (None, "", []):
            raise DataError(
                "exam.no-key",
                f"{self.place}: {where} has no answer, and without its key no reply can be scored. Give `answer`:"
                ' letters, as ["b", "d"] or "b,d", or a number where there are no choices.',
            )
        answers = [self._answer("answer", self.row.get("answer"), letters, where)]
        answers += [self._answer("accepted", value, letters, where) for value in accepted or ()]
        if len(set(answers)) < len(answers):
            raise DataError("exam.answer-twice", f"{self.cell('accepted')} An answer is given twice: leave one out.")
        return tuple(answers)

    def prohibited(self, letters: str | None, gold: tuple[frozenset[str], ...], where: str) -> frozenset[str]:
        """Return the letters that would harm the patient; none when left out."""
        value = self.row.get("prohibited")
        if value is None or value == []:
            return frozenset()
        if letters is None:
            raise DataError(
                "exam.prohibited-without-choices",
                f"{self.cell('prohibited')} A numeric question has no choices: leave it out.",
            )
        letters_read = self._letters("prohibited", value, letters, where, "prohibited names")
        if letters_read & gold[0]:
            raise DataError(
                "exam.prohibited-key",
                f"{self.cell('prohibited')} A letter of the key cannot be prohibited too. Correct the one or the"
                " other.",
            )
        return letters_read

    def _answer(self, column: str, value: object, letters: str | None, where: str) -> frozenset[str]:
        """Return one answer cell."""
        if letters is not None:
            return self._letters(column, value, letters, where, "the key names")
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return frozenset({str(value)})
        if isinstance(value, str) and _NUMBER.fullmatch(unicodedata.normalize("NFKC", value).strip()):
            return frozenset({unicodedata.normalize("NFKC", value).strip().replace(",", "")})
        raise DataError(
            "exam.not-a-number",
            f"{self.cell(column)} A question without choices needs a number. Give one, or give choices.",
        )

    def _letters(self, column: str, value: object, letters: str, where: str, names: str) -> frozenset[str]:
        """Return letters as a list, or as one text joined by commas."""
        given = value.split(",") if isinstance(value, str) else value
        if not isinstance(given, list) or not given or not all(isinstance(letter, str) for letter in given):
            raise DataError("exam.not-letters", f'{self.cell(column)} Give letters, as ["b", "d"] or "b,d".')
        clean = [unicodedata.normalize("NFKC", letter).strip().lower() for letter in given]
        unknown = sorted({letter for letter in clean if len(letter) != 1 or letter not in letters})
        if unknown:
            raise DataError(
                "exam.key-outside-choices",
                f"{self.place}: {where}: {names} {', '.join(letter or '(nothing)' for letter in unknown)} but there"
                f" are {len(letters)} choices ({letters[0]} to {letters[-1]}). Correct {column} or the choices.",
            )
        if len(set(clean)) < len(clean):
            raise DataError("exam.letter-twice", f"{self.cell(column)} A letter is given twice: leave one out.")
        return frozenset(clean)


def _is_text(value: object) -> bool:
    """Return whether a cell is text that can be written as UTF-8 (JSON can hold half a character)."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(value: object) -> str:
    """Return a value as a message shows it, shortened if it is long."""
    written = ascii(value) if isinstance(value, str) and not _is_text(value) else repr(value)
    return written if len(written) <= 200 else f"{written[:200]}..."


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
        tables = (*folder.glob("*.jsonl"), *folder.glob("questions/*.parquet"), *folder.glob("*.parquet"))
        files = sorted(file for file in tables if file.name != "exemplars.jsonl")
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
    translated = []
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
                translated.append(Translation(str(row.get("question_id")), language, text, tuple(map(str, choices))))
    return translated


def exemplars(folder: Path, name: str) -> list[Question]:
    """Read the worked examples in exemplars.jsonl beside the exam; an empty list where that file is absent."""
    file = folder / "exemplars.jsonl"
    return _questions([file], f"{name}-exemplars") if file.exists() else []


def _questions(files: list[Path], name: str) -> list[Question]:
    """Return all rows as questions; an id that occurs twice raises an error that names both places."""
    first: dict[str, str] = {}
    questions = []
    for place, row in (row for file in files for row in table_rows(file)):
        question = read_question(row, place, name)
        if question.question_id in first:
            raise DataError(
                "exam.duplicate-id",
                f"{place}: question_id: the id {question.question_id} occurs twice, first at"
                f" {first[question.question_id]}. Give every question its own id.",
            )
        first[question.question_id] = place
        questions.append(question)
    return questions


def read_question(row: dict[str, Any], place: str, name: str) -> Question:
    """Read one row, at a place that errors name, as a question of the benchmark `name`.

    Raises:
        DataError: A cell is missing or invalid.
    """
    unknown = sorted(column for column in set(row) - set(COLUMNS) if not _TRANSLATED.fullmatch(column))
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
