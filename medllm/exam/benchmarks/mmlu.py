"""JMMLU and MMMLU (JA_JP): the paper's five medical subjects, from CSV or parquet."""

from pathlib import Path
from typing import Any

from medllm.errors import DataError
from medllm.exam.benchmarks.fields import text_of
from medllm.exam.question import LETTERS, Question
from medllm.exam.tables import table_rows

SUBJECTS = ("anatomy", "clinical_knowledge", "college_medicine", "medical_genetics", "professional_medicine")
"""The subjects behind the paper's MMMLU column."""

_OPTIONS = ("A", "B", "C", "D")


def read_jmmlu(folder: Path, name: str) -> list[Question]:
    """Read the five subjects' CSV files, which have no header line."""
    files = [folder / f"{subject}.csv" for subject in SUBJECTS]
    if not all(file.exists() for file in files):
        return []
    columns = ("question", *_OPTIONS, "answer")
    return [
        _question(row, place, name, f"{file.stem}-{number}", file.stem, "question", "answer")
        for file in files
        for number, (place, row) in enumerate(table_rows(file, columns), start=1)
    ]


def read_mmmlu(folder: Path, name: str) -> list[Question]:
    """Read the Japanese file of openai/MMMLU, reduced to the five subjects."""
    found = [*sorted(folder.glob("**/*JA*JP*.csv")), *sorted(folder.glob("**/JA_JP/*.parquet"))]
    rows = [row for file in found[:1] for row in table_rows(file)]
    counts = dict.fromkeys(SUBJECTS, 0)
    questions = []
    for place, row in rows:
        subject = text_of(row, "Subject", place)
        if subject in counts:
            counts[subject] += 1
            questions.append(_question(row, place, name, f"{subject}-{counts[subject]}", subject, "Question", "Answer"))
    return questions


def _question(
    row: dict[str, Any], place: str, name: str, question_id: str, subject: str, asked: str, answered: str
) -> Question:
    answer = text_of(row, answered, place).strip()
    if answer not in _OPTIONS:
        raise DataError("exam.unknown-letter", f"{place}: the answer is {answer!r}. It must be A, B, C or D.")
    return Question(
        question_id=question_id,
        benchmark=name,
        text=text_of(row, asked, place).strip(),
        choices=tuple(text_of(row, option, place).strip() for option in _OPTIONS),
        gold=(frozenset(LETTERS[_OPTIONS.index(answer)]),),
        key=(answer,),
        category=subject,
    )
