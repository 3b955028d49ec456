"""Output of the first pass: kept and dropped texts, and a table of facts for the choice of duplicates."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.data import Document as Passing
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.writers import JsonlWriter

from medllm.corpus.decontaminate.ngrams import fold

FACTS = np.dtype(
    [
        ("published", "<i4"),
        ("exam", "<i4"),
        ("text", "<u8"),
        ("group", "<u8"),
        ("length", "<i8"),
        ("replay", "?"),
        ("id", "S16"),
    ]
)
"""One row for each kept text: days, hashes and lengths, so that duplicates are chosen without reading a text again."""


class WriteIntermediate(PipelineStep):  # type: ignore[misc]
    """Separates kept from dropped texts and passes on the kept ones."""

    type, name = "writer", "keep"

    def __init__(self, work: Path) -> None:
        super().__init__()
        self.work = work

    def run(self, data: Iterable[Passing], rank: int = 0, world_size: int = 1) -> Iterator[Passing]:
        """Write both as JSON lines in the order of reading; a killed task writes its files again from the start."""
        facts = []
        with _writer(self.work, "kept", rank) as kept, _writer(self.work, "dropped", rank) as dropped:
            for document in data:
                if document.metadata["reason"] is not None:
                    dropped.write(document, rank)
                    continue
                kept.write(document, rank)
                facts.append(_fact(document))
                yield document
        np.save(part(self.work, "facts", rank, "npy"), np.array(facts, FACTS))


def part(work: Path, what: str, rank: int, ending: str = "jsonl") -> Path:
    """Return the path of a file that a task writes."""
    folder = work / what
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{rank:05d}.{ending}"


def _writer(work: Path, what: str, rank: int) -> JsonlWriter:
    """Open a writer of one task's lines; its file is empty until the first line."""
    part(work, what, rank).write_bytes(b"")
    return JsonlWriter(str(work / what), compression=None, adapter=_row)


def _row(self: JsonlWriter, document: Passing) -> dict[str, Any]:
    return {"id": document.id, "text": document.text, **document.metadata}


def _fact(document: Passing) -> tuple[Any, ...]:
    metadata = document.metadata
    exam = date.fromisoformat(metadata["exam_date"]).toordinal() if metadata["exam_date"] else 0
    group = _number(metadata["group"].encode()) if metadata["group"] else 0
    return (
        date.fromisoformat(metadata["published"]).toordinal(),
        exam,
        _number(fold(document.text).tobytes()),
        group,
        len(document.text),
        metadata["kind"] == "replay",
        document.id.encode(),
    )


def _number(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def read_part(work: Path, what: str, rank: int) -> Iterator[dict[str, Any]]:
    """Yield the rows that a task wrote."""
    with part(work, what, rank).open("rb") as stream:
        for line in stream:
            yield json.loads(line)
