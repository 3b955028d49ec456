"""The last pass: the corpus, what was dropped from it and the audit as Parquet, with counts for the card."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datatrove.data import Document as Passing
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.writers import ParquetWriter

from medllm.corpus.decontaminate.matcher import verdict
from medllm.corpus.dedup import EXACT, NEAR, NOT_DRAWN
from medllm.corpus.pii import find, hide
from medllm.corpus.steps import AuditConfig, part, read_part

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


_TOLD = [
    ("id", pa.string()),
    ("text", pa.string()),
    ("source", pa.string()),
    ("locator", pa.string()),
    ("license", pa.string()),
    ("published", pa.date32()),
    ("exam_date", pa.date32()),
    ("kind", pa.string()),
    ("topic", pa.string()),
    ("characters", pa.int64()),
]
TOGETHER = 10_000_000
"""Maximum characters that are written together: a thousand documents may be a thousand books."""
FORGOTTEN = "forgotten: withdrawn with medllm forget"
"""The reason of a text that was withdrawn; its row is kept without it."""
PROVENANCE = frozenset(("id", "text", "source", "locator", "license", "published"))
"""Columns that every row of a corpus has: the file format itself refuses a row without one."""
CORPUS = pa.schema(
    [*(pa.field(name, kind, nullable=name not in PROVENANCE) for name, kind in _TOLD), ("tokens", pa.int64())]
)
DROPPED = pa.schema([*_TOLD, ("reason", pa.string()), ("detail", pa.string())])
AUDIT = pa.schema(
    [
        ("document", pa.string()),
        ("source", pa.string()),
        ("locator", pa.string()),
        ("stage", pa.string()),
        ("item", pa.string()),
        ("containment", pa.float64()),
        ("part", pa.string()),
        ("verdict", pa.string()),
        ("reviewed", pa.bool_()),
    ]
)


class TableWriter(ParquetWriter):  # type: ignore[misc]
    """datatrove's Parquet writer for one task: its groups are bounded by characters too, and a file of no rows is one.

    Its files are cut by content, which lets the Hub store only the changes since the last corpus.
    """

    def __init__(self, folder: Path, rank: int, schema: pa.Schema) -> None:
        super().__init__(str(folder), compression="zstd", schema=schema, adapter=_columns, max_file_size=-1)
        self._empty = folder / f"{rank:05d}.parquet"
        self._rank = rank
        self._characters = 0

    def add(self, row: Row) -> None:
        """Add a row; a thousand of them, or ten million characters, are written together."""
        self.write(Passing(row.get("text") or "", "", metadata=row), self._rank)

    def close(self) -> None:
        """Write the rows that are left."""
        if not self._writers:
            self._empty.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(self.schema.empty_table(), self._empty)
        super().close()

    def _write(self, document: Row, file_handler: Any, filename: str) -> None:  # noqa: ANN401  any open file
        super()._write(document, file_handler, filename)
        self._characters += len(document.get("text") or "")
        if self._characters >= TOGETHER or not self._batches[filename]:
            self._write_batch(filename)
            self._characters = 0


def _columns(self: ParquetWriter, document: Passing) -> Row:
    row: Row = document.metadata
    return row


class WriteTables(PipelineStep):  # type: ignore[misc]
    """Writes the Parquet files of one task and counts what is in them."""

    type, name = "writer", "finish"

    def __init__(
        self, work: Path, audit: AuditConfig, tokenizer: Path | None, forgotten: frozenset[str] = frozenset()
    ) -> None:
        super().__init__()
        self.work = work
        self.audit = audit
        self.tokenizer = tokenizer
        self.forgotten = forgotten

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:  # noqa: ANN401
        """Write kept texts without duplicates, dropped ones with their reasons, and matches of the exam."""
        counts = Counts()
        made = self.work / "made"
        with ExitStack() as stack:
            kept, dropped, audit = (
                stack.enter_context(TableWriter(made / name, rank, schema))
                for name, schema in (("corpus", CORPUS), ("dropped", DROPPED), ("audit", AUDIT))
            )
            for document in read_part(self.work, "dropped", rank):
                self._drop(document, dropped, audit, counts)
            for document in self._staying(rank, dropped, audit, counts):
                row = {**_typed_row(document), "tokens": document["tokens"]}
                kept.add(row)
                counts.keep(row, document, self.audit.reviewed)
                self._sight(document, audit, counts)
        part(self.work, "counts", rank, "json").write_text(json.dumps(counts.as_dict(), ensure_ascii=False), "utf-8")

    def _staying(self, rank: int, dropped: TableWriter, audit: TableWriter, counts: Counts) -> Iterator[Row]:
        gone = {int(row["place"]): row for row in np.load(part(self.work, "gone", rank, "npy"))}
        count = _tokens(self.tokenizer)
        for place, document in enumerate(read_part(self.work, "kept", rank)):
            if self._is_forgotten(document):
                document["reason"] = FORGOTTEN
                self._drop(document, dropped, audit, counts)
            elif place in gone:
                document["reason"] = _why(gone[place])
                self._drop(document, dropped, audit, counts)
            else:
                yield {**document, "tokens": count(document["text"])}

    def _drop(self, document: Row, dropped: TableWriter, audit: TableWriter, counts: Counts) -> None:
        if self._is_forgotten(document):  # not even among the dropped texts
            document |= {"reason": FORGOTTEN, "text": "", "leaks": ()}
        reason, _, detail = document["reason"].partition(": ")
        if document.get("personal"):
            document["text"] = hide(document["text"], find(document["text"], document["id"]))
        row = {**_typed_row(document), "reason": reason, "detail": detail}
        # General text that the share has no room for is counted, not kept as dropped: it was only not needed.
        if reason != "not_drawn":
            dropped.add(row)
        counts.drop(row)
        self._sight(document, audit, counts)

    def _is_forgotten(self, document: Row) -> bool:
        text = document["text"].encode("utf-8", "surrogatepass")
        return bool(self.forgotten) and hashlib.sha256(text).hexdigest() in self.forgotten

    def _sight(self, document: Row, audit: TableWriter, counts: Counts) -> None:
        counts.trace(document)
        for leak in document.get("leaks", ()):
            decided = verdict(leak["containment"], drop=self.audit.drop, review=self.audit.review)
            place = {
                "document": document["id"],
                "source": document["source"],
                "locator": document["locator"],
                "stage": "corpus",
            }
            audit.add({**place, **leak, "verdict": decided, "reviewed": document["id"] in self.audit.reviewed})


def _typed_row(document: Row) -> Row:
    days = {name: date.fromisoformat(document[name]) if document[name] else None for name in ("published", "exam_date")}
    return {**{name: document.get(name) for name, _ in _TOLD}, **days, "characters": len(document["text"])}


def _why(row: Any) -> str:  # noqa: ANN401  a row of a numpy table
    if row["why"] == NOT_DRAWN:
        return "not_drawn: the replay share is full"
    name = {EXACT: "duplicate", NEAR: "near_duplicate"}[int(row["why"])]
    return f"{name}: of {row['older'].decode()}, {float(row['alike']):.2f} alike"


def _tokens(folder: Path | None) -> Any:  # noqa: ANN401  a function from text to a number or None
    if folder is None:
        return lambda text: None
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
