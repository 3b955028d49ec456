"""The list behind a number: its questions, each model's outcome on them, and the same as a file."""

from dataclasses import dataclass, field
from urllib.parse import urlencode

import numpy as np

from medllm.exam.record import PROMPTS, Record
from medllm.page.filters import OUTCOMES, Filter, Outcome, containing, outcome
from medllm.page.html import both, hidden, safe
from medllm.page.results import RecordedResults

PAGE = 10
"""Rows shown at first and added by each "more"."""


@dataclass(frozen=True)
class Wanted:
    """The selection that the list shows."""

    model: str
    outcome: Outcome = "lost"
    narrow: Filter = field(default_factory=Filter)
    text: str = ""

    def keys(self, results: RecordedResults) -> list[str]:
        """Return the questions, in the order of the results."""
        if self.model not in results.models or self.outcome not in OUTCOMES:
            return []
        mask = outcome(results, self.model, self.outcome) & self.narrow.mask(results) & containing(results, self.text)
        return [results.keys[place] for place in np.flatnonzero(mask)]

    def query(self) -> str:
        """Return the selection as part of an address."""
        fields = {
            "model": self.model, "outcome": self.outcome, "exam": self.narrow.exam, "year": self.narrow.year,
            "section": self.narrow.section, "category": self.narrow.category, "find": self.text,
            "text": "1" if self.narrow.text_only else "",
        }  # fmt: skip
        return urlencode({name: value for name, value in fields.items() if value})

    @classmethod
    def read(cls, query: dict[str, str], results: RecordedResults) -> "Wanted":
        """Read the selection from an address; a field that the address does not name has its default."""
        exam, year, section, category, text = (
            query.get(name, "")[:200] for name in ("exam", "year", "section", "category", "find")
        )
        narrow = Filter(exam, year, section, category, text_only=query.get("text") == "1")
        wanted: Outcome = next((name for name in OUTCOMES if name == query.get("outcome")), "lost")
        return cls(query.get("model", results.models[0]), wanted, narrow, text)


def rows(results: RecordedResults, wanted: Wanted, shown: int) -> str:
    """Return the list as buttons that open Compare, with its count and its downloads."""
    keys = wanted.keys(results)
    total = int(np.count_nonzero(wanted.narrow.mask(results)))
    items = "".join(f"<li>{_row(results, key, wanted.model)}</li>" for key in keys[:shown])
    links = "".join(
        f'<a href="{safe(f"medllm/list.{form}?{wanted.query()}")}" download>'
        f"<span>{both('download')}&nbsp;{form.upper()}</span></a>"
        for form in ("csv", "jsonl")
    )
    empty = f'<p class="card">{both("no_rows")}</p>' if not keys else ""
    return (
        f'<p class="count" role="status"><b>{len(keys):,}</b> / {total:,} {both("questions")}</p>'
        f'<div class="tools">{links}</div>{empty}<ul class="list">{items}</ul>'
    )


def _row(results: RecordedResults, key: str, model: str) -> str:
    question = results.question(key)
    turns = "".join(
        f'<span class="{"chosen" if other == model else ""}"><small>{safe(other)}</small>'
        f"{'→'.join(_mark(results, key, other, prompt) for prompt in PROMPTS)}</span>"
        for other in results.models
    )
    return (
        f'<button type="button" data-key="{safe(key)}"><span class="id">{safe(question.question_id)}</span>'
        f'<span class="subject">{safe(question.category or question.benchmark)}</span>'
        f'<span class="text" lang="{question.language}">{safe(question.text[:120])}'
        f'</span><span class="turns">{turns}</span></button>'
    )


def _mark(results: RecordedResults, key: str, model: str, prompt: str) -> str:
    place, column = results.place[key], (model, prompt)
    if not results.there[column][place]:  # type: ignore[index]
        sign, name = "·", "absent"
    elif results.right[column][place]:  # type: ignore[index]
        sign, name = "✓", "right"
    elif results.unanswered[column][place]:  # type: ignore[index]
        sign, name = "?", "unparsed"
    else:
        sign, name = "✗", "wrong"
    return f'<span aria-hidden="true">{sign}</span>{hidden(name)}'


def records_of(results: RecordedResults, wanted: Wanted) -> list[Record]:
    """Return every reply to the listed questions, for a download."""
    return [record for key in wanted.keys(results) for record in results.replies(key).values()]
