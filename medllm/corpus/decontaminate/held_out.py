"""The held-out exams as items for the audit: every question and every published translation of it."""

from collections.abc import Iterable
from pathlib import Path

from medllm.corpus.decontaminate.exam_items import ExamItem
from medllm.exam import benchmarks
from medllm.exam.question import Question


def held_out(exams: Iterable[tuple[str, Path]]) -> list[ExamItem]:
    """Collect all items of the held-out exams and their published translations; image questions too, for their text."""
    return [item for name, folder in exams for item in (*_originals(name, folder), *translated_items(name, folder))]


def _originals(name: str, folder: Path) -> list[ExamItem]:
    return [as_item(question) for question in benchmarks.load(name, folder)]


def translated_items(name: str, folder: Path) -> list[ExamItem]:
    """Read the published translations of an exam as more items, named after their questions: `igakuqa/112A1 (en)`."""
    found: dict[str, ExamItem] = {}
    for one in benchmarks.translations(name, folder):
        item = ExamItem(f"{name}/{one.question_id} ({one.language})", one.text, tuple(filter(None, one.choices)))
        found.setdefault(item.name, item)
    return list(found.values())


def as_item(question: Question) -> ExamItem:
    """Convert a question into an item of the audit."""
    stem = f"{question.context}\n{question.text}" if question.context else question.text
    return ExamItem(f"{question.benchmark}/{question.question_id}", stem, tuple(one for one in question.choices if one))


def exam_folder(data: Path, name: str) -> Path:
    """Return the folder of an exam: a folder of its name in `data`, else `data` itself."""
    return data / name if (data / name).exists() else data
