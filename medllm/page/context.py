"""What the page is made for: the results it shows, whether models can be asked, and where votes go."""

from dataclasses import dataclass

from medllm.compare import Cell, Column, recorded
from medllm.page.live import Live
from medllm.page.picker import Shelf
from medllm.page.results import RecordedResults
from medllm.page.review.votes import VoteBox


@dataclass(frozen=True)
class PageContext:
    """One page over one set of results."""

    results: RecordedResults
    shelf: Shelf
    live: Live | None = None
    ballot: VoteBox | None = None

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
