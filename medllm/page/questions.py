"""The questions beside the records: read from an evaluation's tables, or placeholders if there are only records."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medllm.errors import MedllmError
from medllm.exam.question import LETTERS, Question, read_answer
from medllm.page.error_page import ResultsError

NO_TEXT = "—"
"""Placeholder for the text of a question if the records came without their questions."""


def read_questions(folder: Path) -> list[Question]:
    """Read every question of a parquet file, or of a folder's parquet files."""
    found: list[Question] = []
    for file in sorted(folder.glob("*.parquet")) if folder.is_dir() else [folder]:
        try:
            rows = pq.read_table(file).to_pylist()
            found.extend(Question.from_row(row) for row in rows)
        except KeyError as fault:
            raise ResultsError("page.missing-columns", name=f"questions/{file.name}", columns=fault.args[0]) from fault
        except (pa.ArrowInvalid, OSError, MedllmError, TypeError, ValueError) as fault:
            raise ResultsError("page.unreadable", name=f"questions/{file.name}", detail=str(fault)[:160]) from fault
    return found


def placeholders(table: pa.Table) -> list[Question]:
    """Build questions from their records alone: id, key and metadata, no text."""
    found: dict[tuple[str, str], Question] = {}
    names = [
        "benchmark",
        "question_id",
        "gold",
        "year",
        "section",
        "category",
        "points_total",
        "image",
        "required",
        "group",
    ]
    for row in table.select(names).to_pylist():
        name = (row["benchmark"], row["question_id"])
        if name not in found:
            found[name] = _placeholder(row)
    return list(found.values())


def _placeholder(row: Mapping[str, Any]) -> Question:
    gold = read_answer(row["gold"] or "?") or frozenset()
    lettered = all(letter in LETTERS for letter in gold)
    count = max((LETTERS.index(letter) + 1 for letter in gold), default=0) if lettered else 0
    return Question(
        question_id=row["question_id"],
        benchmark=row["benchmark"],
        text=NO_TEXT,
        choices=(NO_TEXT,) * count,
        gold=(gold,),
        key=(",".join(sorted(gold)),),
        numeric=not lettered,
        year=row["year"],
        section=row["section"],
        category=row["category"],
        points=int(row["points_total"] or 0),
        image=bool(row["image"]),
        required=bool(row["required"]),
        vignette_id=row["group"],
    )
