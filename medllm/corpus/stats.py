"""Counts for the card: documents, characters and tokens by source and licence, dates, reasons, findings."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]
SHOWN = 200
"""Findings of personal data that are listed one by one; all are counted."""


@dataclass
class Counts:
    """The counts of one task, or of all tasks together."""

    kept: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Counts by source, licence and unit."""
    topics: Counter[str] = field(default_factory=Counter)
    years: Counter[str] = field(default_factory=Counter)
    exam_years: Counter[str] = field(default_factory=Counter)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Counts by source and reason."""
    rules: Counter[str] = field(default_factory=Counter)
    """Findings of personal data in kept texts, by rule."""
    findings: list[Row] = field(default_factory=list)
    reviews: int = 0
    """Matches of the exam in kept texts that no person has reviewed."""
    audited: tuple[int, int] = (0, 0)
    """Documents and characters compared with the exams, both kept and dropped."""
    largest: dict[str, tuple[float, str]] = field(default_factory=dict)
    """For each exam item the largest containment and the document it was found in."""

    def keep(self, row: Row, document: Row, reviewed: frozenset[str]) -> None:
        """Count a kept text."""
        for what, number in (("documents", 1), ("characters", row["characters"]), ("tokens", row["tokens"] or 0)):
            self.kept[row["source"], row["license"], what] += number
        self.topics[row["topic"] or row["kind"]] += 1
        self.years[str(row["published"].year)] += 1
        if row["exam_date"]:
            self.exam_years[str(row["exam_date"].year)] += 1
        for finding in document["personal"]:
            self.rules[finding["rule"]] += 1
            if len(self.findings) < SHOWN:
                self.findings.append({"document": row["id"], "source": row["source"], **finding})
        if row["id"] not in reviewed:
            self.reviews += len(document["leaks"])

    def drop(self, row: Row) -> None:
        """Count a dropped text, under its reason."""
        self.reasons[row["source"], row["reason"]] += 1

    def trace(self, document: Row) -> None:
        """Record the document with the largest trace of each exam item; of two as large, the first read."""
        self.audited = (self.audited[0] + 1, self.audited[1] + len(document["text"]))
        for item, containment in document.get("traces", ()):
            if containment > self.largest.get(item, (0.0, ""))[0]:
                self.largest[item] = (containment, document["id"])

    def add(self, other: "Counts") -> None:
        """Add the counts of a later task."""
        for mine, theirs in (
            (self.kept, other.kept),
            (self.topics, other.topics),
            (self.years, other.years),
            (self.exam_years, other.exam_years),
            (self.reasons, other.reasons),
            (self.rules, other.rules),
        ):
            mine.update(theirs)  # type: ignore[arg-type]
        self.findings = [*self.findings, *other.findings][:SHOWN]
        self.reviews += other.reviews
        self.audited = (self.audited[0] + other.audited[0], self.audited[1] + other.audited[1])
        for item, seen in other.largest.items():
            if seen[0] > self.largest.get(item, (0.0, ""))[0]:
                self.largest[item] = seen

    def as_dict(self) -> Row:
        """Return the counts as JSON values."""
        return {
            "kept": [[*key, number] for key, number in sorted(self.kept.items())],
            "topics": dict(sorted(self.topics.items())),
            "years": dict(sorted(self.years.items())),
            "exam_years": dict(sorted(self.exam_years.items())),
            "reasons": [[*key, number] for key, number in sorted(self.reasons.items())],
            "rules": dict(sorted(self.rules.items())),
            "findings": self.findings,
            "reviews": self.reviews,
            "audited": list(self.audited),
            "largest": {item: list(seen) for item, seen in sorted(self.largest.items())},
        }

    @classmethod
    def read(cls, written: Row) -> "Counts":
        """Read the counts that a task wrote."""
        return cls(
            Counter({(source, license, what): number for source, license, what, number in written["kept"]}),
            Counter(written["topics"]),
            Counter(written["years"]),
            Counter(written["exam_years"]),
            Counter({(source, reason): number for source, reason, number in written["reasons"]}),
            Counter(written["rules"]),
            written["findings"],
            written["reviews"],
            (written["audited"][0], written["audited"][1]),
            {item: (containment, document) for item, (containment, document) in written["largest"].items()},
        )
