"""What the first pass leaves behind: kept and dropped texts, and a table of facts by which duplicates are judged."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from datatrove.data import Document as Passing
from datatrove.pipeline.base import PipelineStep

from medllm.corpus.grams import fold

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
"""One row for each kept text: by days, hashes and lengths duplicates are judged without reading a text again."""


class Keep(PipelineStep):  # type: ignore[misc]
    """Parts kept from dropped; only the kept go on."""

    type, name = "writer", "keep"

    def __init__(self, work: Path) -> None:
        super().__init__()
        self.work = work

    def run(self, data: Iterable[Passing], rank: int = 0, world_size: int = 1) -> Iterator[Passing]:
        """Both as JSON lines in the order of reading; a task that is killed writes its files anew."""
        kept_path, dropped_path = part(self.work, "kept", rank), part(self.work, "dropped", rank)
        facts = []
        with kept_path.open("wb") as kept, dropped_path.open("wb") as dropped:
            for document in data:
                if document.metadata["reason"] is not None:
                    _write(dropped, document)
                    continue
                _write(kept, document)
                facts.append(_fact(document))
                yield document
        np.save(part(self.work, "facts", rank, "npy"), np.array(facts, FACTS))


def part(work: Path, what: str, rank: int, ending: str = "jsonl") -> Path:
    """Where a task keeps what it made."""
    folder = work / what
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{rank:05d}.{ending}"


def _write(stream: BinaryIO, document: Passing) -> None:
    row = {"id": document.id, "text": document.text, **document.metadata}
    stream.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")


def _fact(document: Passing) -> tuple[Any, ...]:
    told = document.metadata
    exam = date.fromisoformat(told["exam_date"]).toordinal() if told["exam_date"] else 0
    group = _number(told["group"].encode()) if told["group"] else 0
    return (
        date.fromisoformat(told["published"]).toordinal(),
        exam,
        _number(fold(document.text).tobytes()),
        group,
        len(document.text),
        told["kind"] == "replay",
        document.id.encode(),
    )


def _number(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def read_part(work: Path, what: str, rank: int) -> Iterator[dict[str, Any]]:
    """The rows that a task kept."""
    with part(work, what, rank).open("rb") as stream:
        for line in stream:
            yield json.loads(line.decode("utf-8", "surrogatepass"))
