"""MedQA, MedMCQA, PubMedQA in English and Japanese, and the medical subjects of JMMLU and MMMLU."""

from pathlib import Path
from typing import Any

from medllm.errors import DataError
from medllm.exam.benchmarks.fields import text_of
from medllm.exam.question import LETTERS, Question
from medllm.exam.tables import table_rows

_ENGLISH = {"medqa": "medqa_en.jsonl", "medmcqa": "medmcqa.jsonl", "pubmedqa": "pubmedqa.jsonl"}
_JAPANESE = {"medqa-ja": "medqa_jp", "medmcqa-ja": "medmcqa_jp", "pubmedqa-ja": "pubmedqa_jp"}


def read_english(folder: Path, name: str) -> list[Question]:
    """Read the test questions of an English set; PubMedQA's abstract becomes the passage to read first."""
    file = folder / _ENGLISH[name]
    return [_english(row, place, name) for place, row in table_rows(file)] if file.exists() else []


def read_japanese(folder: Path, name: str) -> list[Question]:
    """Read the test questions of a translated set, from JSON lines or parquet."""
    subset = _JAPANESE[name]
    questions = [
        *folder.glob(f"{subset}/test*.jsonl"),
        *folder.glob(f"{subset}/test*.parquet"),
        *folder.glob(f"**/{subset}/test*.parquet"),
    ]
    files = sorted(set(questions))
    rows = [row for file in files for row in table_rows(file)]
    return [_japanese(row, place, name, number) for number, (place, row) in enumerate(rows)]


def _english(row: dict[str, Any], place: str, name: str) -> Question:
    return Question(
        question_id=text_of(row, "problem_id", place),
        benchmark=name,
        text=text_of(row, "problem_text", place),
        choices=tuple(row["choices"]),
        gold=(frozenset(row["answer"]),),
        key=tuple(row["answer"]),
        image=not row.get("text_only", True),
        context=row.get("context") or None,
        language="en",
    )


def _japanese(row: dict[str, Any], place: str, name: str, number: int) -> Question:
    """Convert a row of sample_id, question, options, answer_idx (counted from 0), n_options, metadata to a question."""
    options = row.get("options")
    if not isinstance(options, list) or not options:
        raise DataError(
            "exam.choices-not-a-list", f"{place}: options is {options!r}. It must be a list of texts, as in JMedBench."
        )
    where = row.get("answer_idx")
    if not isinstance(where, int) or not 0 <= where < len(options):
        raise DataError("exam.out-of-range", f"{place}: answer_idx is {where!r}. It must be 0 to {len(options) - 1}.")
    sample_id = row.get("sample_id")
    return Question(
        question_id=str(sample_id) if sample_id not in (None, "") else str(number),
        benchmark=name,
        text=text_of(row, "question", place),
        choices=tuple(options),
        gold=(frozenset(LETTERS[where]),),
        key=(str(where),),
        language="ja",
    )


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
    files = [*sorted(folder.glob("**/*JA*JP*.csv")), *sorted(folder.glob("**/JA_JP/*.parquet"))]
    rows = [row for file in files[:1] for row in table_rows(file)]
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
