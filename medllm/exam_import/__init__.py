"""Imports an exam from a spreadsheet, CSV or JSON file as people have it into an exam of one's own."""

import json
from pathlib import Path
from typing import Any

from medllm.errors import DataError
from medllm.exam.benchmarks import custom
from medllm.exam_import.columns import Columns, guess_columns, parse_columns
from medllm.exam_import.rows import ImportedExam, RowFault, import_rows
from medllm.exam_import.sheet import Sheet, read_sheet
from medllm.files import write_text

__all__ = [
    "Columns",
    "ImportedExam",
    "RowFault",
    "Sheet",
    "guess_columns",
    "import_rows",
    "parse_columns",
    "read_sheet",
    "write_exam",
]


def write_exam(exam: ImportedExam, folder: Path, source: str, columns: Columns) -> None:
    """Write `questions.jsonl` and `import.json` into a folder that is new, empty, or written by an earlier import.

    The questions are read back by the reader of own exams before anything is replaced.

    Raises:
        DataError: The folder holds other files, no question is left, or a question is refused by the reader.
    """
    present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if folder.exists() and (not folder.is_dir() or (present and custom.IMPORT_REPORT not in present)):
        raise DataError("exam.folder-not-empty", f"{folder}: holds other files. Name a new or empty folder with --out.")
    if not exam.questions:
        raise DataError("exam.no-question", f"{source}: no row is a question. Check --columns.")
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in exam.questions)
    draft = folder / "draft" / "questions.jsonl"
    try:
        write_text(draft, lines)
        custom.read(draft, folder.name)
    finally:
        draft.unlink(missing_ok=True)
        draft.parent.rmdir()
    write_text(folder / "questions.jsonl", lines)
    write_text(
        folder / custom.IMPORT_REPORT, json.dumps(report(exam, source, columns), ensure_ascii=False, indent=2) + "\n"
    )


def report(exam: ImportedExam, source: str, columns: Columns) -> dict[str, Any]:
    """Return the facts of an import: source, columns, counts, faulty rows, notes."""
    return {
        "source": source,
        "columns": {**columns.fields, "choices": list(columns.choices)},
        "unused_headings": list(columns.unused),
        "questions": len(exam.questions),
        "by_year": exam.years(),
        "numeric": sum(not row["choices"] for row in exam.questions),
        "several_answers": sum("," in row["answer"] for row in exam.questions if row["choices"]),
        "images": sum("image" in row for row in exam.questions),
        "left_out": [{"row": fault.row, "cause": fault.text} for fault in exam.faults],
        "notes": list(exam.notes),
    }
