"""The report of the leakage audit: matches by document with their places, the largest containment by item, totals."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jinja2
import numpy as np

from medllm.corpus.decontaminate.exam_items import ALPHABETIC, JAPANESE, ExamItem
from medllm.corpus.decontaminate.matcher import DROP, REVIEW, Verdict, reveal, reveal_places, verdict
from medllm.corpus.decontaminate.ngrams import fold_audit, fold_places, hash_grams
from medllm.files import write_text

EXCERPT_CHARACTERS = 1500
"""Characters of a text that are shown around a match."""


class Excerpt(NamedTuple):
    """A stretch of text, marked or not."""

    text: str
    marked: bool


def spans(text: str, item: ExamItem) -> list[tuple[int, int]]:
    """Find the stretches that the text shares with the item, by its grams, and for short items by shorter ones.

    Markup, escapes and readings that hide the item are removed as in the audit; a stretch includes them.
    """
    measure = ALPHABETIC if item.alphabetic else JAPANESE
    shown, begins, ends = reveal_places(text)
    codes, places = fold_places(shown)
    parts = [fold_audit(reveal(part)) for part in (item.question, *item.options)]
    brief = len(parts[0]) < measure.length + measure.question_apart
    for length in (measure.near,) if brief else (measure.length, measure.near):
        grams = np.concatenate([hash_grams(part, length) for part in parts])
        found = np.flatnonzero(np.isin(hash_grams(codes, length), grams))
        if len(found):
            first, last = begins[places[found]], ends[places[found + length - 1]]
            return _joined(list(zip(first.tolist(), last.tolist(), strict=True)))
    return []


def _joined(stretches: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for begin, end in stretches:
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((begin, end))
    return joined


def excerpt(text: str, item: ExamItem) -> list[Excerpt]:
    """Return the part of the text with most of the item in it, cut where marked stretches begin and end."""
    marked = spans(text, item)
    if not marked:
        return [Excerpt(text[:EXCERPT_CHARACTERS], False)]
    begins = [max(begin - 100, 0) for begin, _ in marked]
    begin = max(
        begins,
        key=lambda at: sum(
            min(e, at + EXCERPT_CHARACTERS) - b for b, e in marked if b >= at and b < at + EXCERPT_CHARACTERS
        ),
    )
    end = min(begin + EXCERPT_CHARACTERS, len(text))
    pieces, at = [], begin
    for b, e in marked:
        b, e = max(b, begin), min(e, end)
        if b >= e:
            continue
        pieces += [Excerpt(text[at:b], False), Excerpt(text[b:e], True)]
        at = e
    return [piece for piece in (*pieces, Excerpt(text[at:end], False)) if piece.text]


Stage = Literal["corpus", "preferences", "few-shot", "teacher"]
SHOWN = 200
"""Number of matches that are shown with their text; all are listed."""


@dataclass(frozen=True)
class Finding:
    """A document that contains a large part of an item."""

    document: str
    item: str
    containment: float
    """Share of the item in the document; for part `meaning` the cosine of the two texts."""
    part: str
    verdict: Verdict
    stage: Stage


@dataclass(frozen=True)
class ShownFinding:
    """A match with its text and its item."""

    found: Finding
    text: list[Excerpt]
    item: str


@dataclass
class AuditReport:
    """The findings of one audit, or of a part of one."""

    items: int
    unsearchable: list[str]
    drop: float = DROP
    review: float = REVIEW
    documents: int = 0
    characters: int = 0
    unread: dict[str, int] = field(default_factory=dict)
    """Number of unreadable texts, by reason: they were not audited and do not count as clean."""
    found: list[Finding] = field(default_factory=list)
    shown: list[ShownFinding] = field(default_factory=list)
    largest: dict[str, tuple[float, str]] = field(default_factory=dict)

    def judge(self, containment: float) -> Verdict | None:
        """Return the verdict under the thresholds of this audit."""
        return verdict(containment, drop=self.drop, review=self.review)

    def trace(self, item: str, containment: float, document: str) -> None:
        """Record a trace of an item; keep the largest, and of two as large the first."""
        if containment > self.largest.get(item, (0.0, ""))[0]:
            self.largest[item] = (containment, document)

    def record_match(self, found: Finding, text: list[Excerpt], item: str) -> None:
        """Record a match; keep the first ones with their text."""
        self.found.append(found)
        if len(self.shown) < SHOWN:
            self.shown.append(ShownFinding(found, text, item))

    def add(self, other: "AuditReport") -> None:
        """Add the findings of a later part."""
        self.documents += other.documents
        self.characters += other.characters
        for reason, number in other.unread.items():
            self.unread[reason] = self.unread.get(reason, 0) + number
        self.found += other.found
        self.shown = [*self.shown, *other.shown][:SHOWN]
        for item, (containment, document) in other.largest.items():
            self.trace(item, containment, document)

    @property
    def leaked(self) -> bool:
        """Whether some text must be dropped; what a person has to review has not leaked yet."""
        return any(one.verdict == "drop" for one in self.found)

    def against(self, exam: str, items: int) -> "AuditReport":
        """Return the part of this report that is about one exam, which has so many items."""

        def of_exam(item: str) -> bool:
            return item.startswith(f"{exam}/")

        return replace(
            self,
            items=items,
            unsearchable=[item for item in self.unsearchable if of_exam(item)],
            found=[one for one in self.found if of_exam(one.item)],
            shown=[one for one in self.shown if of_exam(one.found.item)],
            largest={item: seen for item, seen in self.largest.items() if of_exam(item)},
        )

    def totals(self) -> dict[str, Any]:
        """Return the counts of the report."""
        worst = {"drop": set[str](), "review": set[str]()}
        for one in self.found:
            worst[one.verdict].add(one.document)
        return {
            "documents": self.documents,
            "characters": self.characters,
            "items": self.items,
            "documents_to_drop": len(worst["drop"]),
            "documents_to_review": len(worst["review"] - worst["drop"]),
            "items_leaked": sum(seen[0] >= self.drop for seen in self.largest.values()),
            "items_to_review": sum(self.review <= seen[0] < self.drop for seen in self.largest.values()),
            "items_unsearchable": len(self.unsearchable),
            "unread": dict(sorted(self.unread.items())),
        }

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        documents = [
            {
                "document": one.document,
                "item": one.item,
                "containment": one.containment,
                "verdict": one.verdict,
                "part": one.part,
                "stage": one.stage,
            }
            for one in self.found
        ]
        items = [
            {"item": item, "containment": containment, "document": document}
            for item, (containment, document) in sorted(self.largest.items(), key=lambda seen: (-seen[1][0], seen[0]))
        ]
        return {"documents": documents, "items": items, "totals": self.totals(), "unsearchable": self.unsearchable}


def write_page(report: AuditReport, title: str, path: Path) -> None:
    """Write the page to a temporary file and move it into place, so that no reader sees half a page."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    items = report.as_dict()["items"][:SHOWN]
    page = environment.from_string(Path(__file__).with_suffix(".html").read_text("utf-8")).render(
        title=title, report=report, totals=report.totals(), items=items, shown=SHOWN
    )
    write_text(path, page, "replace")
