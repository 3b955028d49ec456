"""The held-out exam as the audit sees it: items with a question and options that may stand in any order."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from medllm.corpus.decontaminate.ngrams import ALPHABET, fold_audit
from medllm.errors import DataError

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
        """The item as a page would print it."""
        return "\n".join((self.question, *self.options))

    @property
    def alphabetic(self) -> bool:
        """Whether it is in an alphabet alone: 13 letters are two words, 13 kanji and kana are a clause."""
        codes = fold_audit(self.text)
        return bool((codes < ALPHABET).sum() > 0.95 * len(codes))


class Match(NamedTuple):
    """A text that holds a part of an item."""

    document: int
    """Its place among the texts that were looked at."""
    item: int
    containment: float
    part: Part


def distinct(items: Iterable[ExamItem]) -> list[ExamItem]:
    """The items as a list; two of one name would make the report ambiguous and an empty exam would clear everything."""
    found = list(items)
    if not found:
        raise DataError("The held-out exam has no items: against nothing every text is clean. Name one with questions.")
    names: set[str] = set()
    for item in found:
        if item.name in names:
            raise DataError(f"{item.name}: two held-out items bear this name. Give each question an id of its own.")
        names.add(item.name)
    return found
