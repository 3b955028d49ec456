"""What the page is made for: the results it shows, whether models can be asked, and where votes go."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

from medllm.compare import Cell, Column, recorded
from medllm.exam.question import Question
from medllm.exam.record import PromptStyle
from medllm.page.ballot import Ballot
from medllm.page.choose import Shelf
from medllm.page.results import Results


class Live(Protocol):
    """Models that can be asked now."""

    columns: tuple[Column, ...]
    """Which models are asked, under which prompts."""
    name: str
    """What answers, for the chip and the About page."""

    def ask(self, question: Question, free: bool) -> Callable[[str, PromptStyle], AsyncIterator[str]]:
        """A producer of replies to one question; `free` when it has no choices and no key."""

    def judge(self, question: Question, free: bool) -> Callable[[str, PromptStyle, str], Cell]:
        """A reader of whole replies to one question."""

    def prompt(self, question: Question, free: bool, style: PromptStyle) -> str:
        """The exact prompt that is sent."""


@dataclass(frozen=True)
class Page:
    """One page over one set of results."""

    results: Results
    shelf: Shelf
    live: Live | None = None
    ballot: Ballot | None = None

    def cells(self, key: str) -> dict[Column, Cell]:
        """The recorded cells of a question."""
        return {column: recorded(record) for column, record in self.results.replies(key).items()}

    def notes(self) -> dict[str, str]:
        """What stands under each model's name: its repository and revision, as the runs tell it."""
        told: dict[str, str] = {}
        for run in self.results.runs:
            name, revision = str(run.get("source") or ""), str(run.get("revision") or run.get("model_revision") or "")
            told.setdefault(str(run.get("model")), "@".join(part for part in (name, revision[:12]) if part))
        return told
