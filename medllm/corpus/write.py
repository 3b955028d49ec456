"""The last pass: the corpus, what was dropped from it and the audit as Parquet, with counts of everything."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datatrove.data import Document as Passing
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.writers import ParquetWriter

from medllm.corpus.clean.pii import find, hide
from medllm.corpus.decontaminate.matcher import verdict
from medllm.corpus.dedup.resolve import EXACT, NEAR, NOT_DRAWN
from medllm.corpus.intermediate import part, read_part
from medllm.corpus.stats import Counts, Row
from medllm.corpus.steps import AuditConfig

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


class Table(ParquetWriter):  # type: ignore[misc]
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

    def __init__(self, work: Path, audit: AuditConfig, tokenizer: Path | None) -> None:
        super().__init__()
        self.work = work
        self.audit = audit
        self.tokenizer = tokenizer

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:  # noqa: ANN401
        """Write kept texts without duplicates, dropped ones with their reasons, and matches of the exam."""
        counts = Counts()
        made = self.work / "made"
        with ExitStack() as stack:
            kept, dropped, audit = (
                stack.enter_context(Table(made / name, rank, schema))
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

    def _staying(self, rank: int, dropped: Table, audit: Table, counts: Counts) -> Iterator[Row]:
        gone = {int(row["place"]): row for row in np.load(part(self.work, "gone", rank, "npy"))}
        count = _tokens(self.tokenizer)
        for place, document in enumerate(read_part(self.work, "kept", rank)):
            if place in gone:
                document["reason"] = _why(gone[place])
                self._drop(document, dropped, audit, counts)
            else:
                yield {**document, "tokens": count(document["text"])}

    def _drop(self, document: Row, dropped: Table, audit: Table, counts: Counts) -> None:
        reason, _, detail = document["reason"].partition(": ")
        if document.get("personal"):
            document["text"] = hide(document["text"], find(document["text"], document["id"]))
        row = {**_typed_row(document), "reason": reason, "detail": detail}
        # General text that the share has no room for is counted, not kept as dropped: it was only not needed.
        if reason != "not_drawn":
            dropped.add(row)
        counts.drop(row)
        self._sight(document, audit, counts)

    def _sight(self, document: Row, audit: Table, counts: Counts) -> None:
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
