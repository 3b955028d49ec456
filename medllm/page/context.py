"""The context of a page: the results it shows, the models it can ask, and the place of its votes."""

from dataclasses import dataclass, field

from medllm.page.live import Live, RecentAnswers
from medllm.page.picker import Shelf
from medllm.page.results import RecordedResults
from medllm.page.vote_box import VoteBox


@dataclass(frozen=True)
class PageContext:
    """One page over one set of results."""

    results: RecordedResults
    shelf: Shelf
    live: Live | None = None
    ballot: VoteBox | None = None
    answers: RecentAnswers = field(default_factory=RecentAnswers)

    def notes(self) -> dict[str, str]:
        """The line under each model's name: its repository and revision, as the runs record them."""
        names: dict[str, str] = {}
        for run in self.results.runs:
            name, revision = str(run.get("source") or ""), str(run.get("revision") or run.get("model_revision") or "")
            names.setdefault(str(run.get("model")), "@".join(part for part in (name, revision[:12]) if part))
        return names
