"""IgakuQA as its repository lays it out: five years of the medical exam, metadata, vignettes, prompt file."""

import re
from datetime import date
from pathlib import Path
from typing import Any

from medllm.exam.benchmarks.fields import Vignettes, float_or_none, normal_letters, numeric_gold, text_of
from medllm.exam.question import LETTERS, Question, Translation
from medllm.exam.tables import table_rows

EXAM_DATES = {
    2006: date(2006, 2, 18),
    2018: date(2018, 2, 10),
    2019: date(2019, 2, 9),
    2020: date(2020, 2, 8),
    2021: date(2021, 2, 6),
    2022: date(2022, 2, 5),
}
"""The first day of each sitting; 2006 is the 100th exam, the source of the prompt file's examples."""

_ANYTHING_RIGHT = frozenset({"116A71"})
_EITHER = re.compile(r"([a-h]) or ([a-h])")


def read(folder: Path, name: str) -> list[Question]:
    """Read the questions of every year that the folder has, in the order of year, section and number."""
    root = folder / "data" if (folder / "data").is_dir() else folder
    sections = sorted(root.glob("20[0-9][0-9]/[0-9][0-9][0-9]-[A-F].jsonl"))
    return [question for file in sections for question in _section(file, name)]


def translations(folder: Path) -> list[Translation]:
    """Read the English translations that IgakuQA publishes beside its sections, under the Japanese questions' ids."""
    root = folder / "data" if (folder / "data").is_dir() else folder
    files = sorted(root.glob("20[0-9][0-9]/[0-9][0-9][0-9]-[A-F]_translate.jsonl"))
    rows = [row for file in files for row in table_rows(file)]
    return [
        Translation(
            text_of(row, "problem_id", place), "en", text_of(row, "problem_text_en", place), tuple(row["choices_en"])
        )
        for place, row in rows
    ]


def exemplars(folder: Path) -> list[Question]:
    """Read the three worked examples of the original prompt file, from the exam of 2006, with their explanations."""
    file = folder / "prompts" / "prompt.jsonl"
    if not file.exists():
        return []
    return [_question(row, {}, place, 2006, "igakuqa-prompt") for place, row in table_rows(file)]


def _section(file: Path, name: str) -> list[Question]:
    year = int(file.parent.name)
    metadata_file = file.with_name(f"{file.stem}_metadata.jsonl")
    metadata = (
        {text_of(row, "problem_id", place): row for place, row in table_rows(metadata_file)}
        if metadata_file.exists()
        else {}
    )
    rows = table_rows(file)
    vignettes = Vignettes.of([(row["problem_id"], row["problem_text"]) for _, row in rows])
    return [_question(row, metadata.get(row["problem_id"], {}), place, year, name, vignettes) for place, row in rows]


def _question(
    row: dict[str, Any], metadata: dict[str, Any], place: str, year: int, name: str, vignettes: Vignettes | None = None
) -> Question:
    """Build one question from its row, its metadata row and the vignettes of its section."""
    question_id = text_of(row, "problem_id", place)
    text = text_of(row, "problem_text", place)
    choices = tuple(row["choices"])
    section = question_id[3]
    accuracy = float_or_none(metadata.get("human_accuracy"))
    return Question(
        question_id=question_id,
        benchmark=name,
        text=text,
        choices=choices,
        gold=_gold(row["answer"], text, numeric=not choices),
        key=tuple(row["answer"]),
        exam_date=EXAM_DATES[year],
        year=year,
        section=section,
        numeric=not choices,
        points=int(row.get("points", 1)),
        required=section in "BE",
        image=not row["text_only"],
        any_answer_correct=question_id in _ANYTHING_RIGHT,
        category=metadata.get("category") or None,
        human_accuracy=None if accuracy is None else accuracy / 100,
        breakdown=tuple(float(share) / 100 for share in metadata.get("breakdown", ())),
        prohibited=normal_letters(metadata.get("kinki", ())),
        explanation=row.get("explanation") or None,
        vignette_id=vignettes.group(question_id) if vignettes else None,
        vignette_text=vignettes.lost(question_id) if vignettes else None,
        language="ja",
    )


def _gold(key: list[str], text: str, *, numeric: bool) -> tuple[frozenset[str], ...]:
    """Return the accepted answers of a published key: 'a or d' gives two, a number is repaired by its template."""
    if numeric:
        return numeric_gold(key[0], text)
    if either := _EITHER.fullmatch(key[0]):
        return tuple(frozenset({letter}) for letter in either.groups())
    return (frozenset(letter for letter in key if letter in LETTERS),)
