"""The held-out exam for the audit: items with a question and options, matched in any order."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from medllm.corpus.decontaminate.ngrams import ALPHABET, fold_audit
from medllm.errors import DataError
from medllm.exam import benchmarks
from medllm.exam.question import Question

Part = Literal["question", "options", "together"]
PARTS: tuple[Part, ...] = ("question", "options", "together")


@dataclass(frozen=True)
class ExamItem:
    """One held-out exam item."""

    name: str
    """Benchmark and question, as in igakuqa/116-A-1."""
    question: str
    """The question with the case it belongs to."""
    options: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """Return the item as a page would print it."""
        return "\n".join((self.question, *self.options))

    @property
    def alphabetic(self) -> bool:
        """Return whether the item uses an alphabet alone: 13 letters are two words, 13 kanji and kana are a clause."""
        codes = fold_audit(self.text)
        return bool((codes < ALPHABET).sum() > 0.95 * len(codes))


class Match(NamedTuple):
    """A match: a text that contains a part of an item."""

    document: int
    """Position of the text among the searched texts."""
    item: int
    containment: float
    part: Part


def distinct(items: Iterable[ExamItem]) -> list[ExamItem]:
    """List the items; raise DataError for two of one name (an ambiguous report) or none (every text would be clean)."""
    found = list(items)
    if not found:
        raise DataError(
            "corpus.no-exam-items",
            "The held-out exams have no questions, so every text would count as clean. Name an exam with questions.",
        )
    names: set[str] = set()
    for item in found:
        if item.name in names:
            raise DataError(
                "corpus.duplicate-exam-item",
                f"{item.name}: two held-out questions have this name. Give each question its own id.",
            )
        names.add(item.name)
    return found


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
