"""The context of a page: its results, its models, the place of its votes, and the lists that its questions are in."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby

from medllm.exam.question import Question
from medllm.page.html import notice
from medllm.page.live import Live, RecentAnswers
from medllm.page.results import RecordedResults
from medllm.page.vote_box import VoteBox

LONGEST_LIST = 120
"""Questions in one list; a larger section is cut into ranges, since every choice is sent with the page."""


SHORT = 12_000
"""Characters of a question with all its replies; ordinary ones have half as many."""

TRIED = 50
"""Questions among which the page looks for a short one to open with."""


@dataclass(frozen=True)
class PickerState:
    """The place of a question in the lists."""

    exam: str
    year: str
    section: str
    key: str


@dataclass(frozen=True)
class Shelf:
    """The questions of some results, ordered for choosing."""

    results: RecordedResults

    @cached_property
    def places(self) -> tuple[PickerState, ...]:
        """Every question with its lists, in the order of the lists."""
        states: list[PickerState] = []
        ordered = sorted(zip(self.results.questions, self.results.keys, strict=True), key=lambda pair: _lists(pair[0]))
        for (exam, year, section), group in groupby(ordered, key=lambda pair: _lists(pair[0])):
            members = list(group)
            for at, (_, key) in enumerate(members):
                states.append(PickerState(exam, year, _range(section, at, len(members)), key))
        return tuple(states)

    @cached_property
    def at(self) -> dict[str, int]:
        """The position of each key in `places`."""
        return {place.key: at for at, place in enumerate(self.places)}

    @cached_property
    def opening(self) -> PickerState:
        """The question that the page opens with: the first of ordinary length, since the page carries its texts."""
        return next((place for place in self.places[:TRIED] if self._length(place.key) <= SHORT), self.places[0])

    def _length(self, key: str) -> int:
        replies = self.results.replies(key).values()
        return len(self.results.question(key).text) + sum(len(record.completion) for record in replies)

    def of(self, key: str) -> PickerState:
        """Return the place of a key."""
        return self.places[self.at[key]]

    def exams(self) -> list[str]:
        """Return the names of the exams."""
        return _distinct(place.exam for place in self.places)

    def years(self, exam: str) -> list[str]:
        """Return the years of an exam."""
        return _distinct(place.year for place in self.places if place.exam == exam)

    def sections(self, exam: str, year: str) -> list[str]:
        """Return the sections of an exam's year."""
        return _distinct(place.section for place in self.places if (place.exam, place.year) == (exam, year))

    def numbers(self, exam: str, year: str, section: str) -> list[tuple[str, str]]:
        """Return the questions of a section, as name and key."""
        wanted = (exam, year, section)
        return [
            (self.results.question(place.key).question_id, place.key)
            for place in self.places
            if (place.exam, place.year, place.section) == wanted
        ]

    def first(self, exam: str, year: str | None = None, section: str | None = None) -> str:
        """Return the first question that fits; a choice that no longer fits after a change is dropped."""
        for wanted in ((exam, year, section), (exam, year, None), (exam, None, None)):
            for place in self.places:
                if all(
                    asked is None or asked == have
                    for asked, have in zip(wanted, (place.exam, place.year, place.section), strict=True)
                ):
                    return place.key
        return self.places[0].key

    def beside(self, key: str, step: int) -> str:
        """Return the question before or after, wrapping at the ends; for an unknown key, the first."""
        return self.places[(self.at[key] + step) % len(self.places)].key if key in self.at else self.places[0].key

    def another(self, key: str, among: Sequence[str]) -> str:
        """Return a random question of `among`, a different one from `key` if there is one."""
        others = [other for other in among if other != key]
        return random.choice(others) if others else key


def _lists(question: Question) -> tuple[str, str, str]:
    year = "–" if question.year is None else str(question.year)
    return question.benchmark, year, question.section or "–"


def _range(section: str, at: int, size: int) -> str:
    if size <= LONGEST_LIST:
        return section
    low = at // LONGEST_LIST * LONGEST_LIST
    span = f"{low + 1}–{min(low + LONGEST_LIST, size)}"
    return span if section == "–" else f"{section} {span}"


def _distinct(names: object) -> list[str]:
    return list(dict.fromkeys(names))  # type: ignore[call-overload]


@dataclass(frozen=True)
class PageContext:
    """One page over one set of results."""

    results: RecordedResults
    shelf: Shelf
    live: Live | None = None
    ballot: VoteBox | None = None
    sign_in: bool = False
    """Whether raters sign in with a Hugging Face account."""
    answers: RecentAnswers = field(default_factory=RecentAnswers)

    def staleness(self) -> str:
        """Return the notice that the files have changed since the page was started; empty if they have not."""
        return notice("results_changed") if self.results.changed() else ""

    def notes(self) -> dict[str, str]:
        """The line under each model's name: its repository and revision, as the runs record them."""
        names: dict[str, str] = {}
        for run in self.results.runs:
            name, revision = str(run.get("source") or ""), str(run.get("revision") or run.get("model_revision") or "")
            names.setdefault(str(run.get("model")), "@".join(part for part in (name, revision[:12]) if part))
        return names
