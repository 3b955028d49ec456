"""The first pass as datatrove steps: read, admit, clean, gate personal data, audit, and write for the later passes."""

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

import numpy as np
from datatrove.data import Document as Passing
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.writers import JsonlWriter

from medllm.corpus.cleaning import FilterLimits, drop_reason, normalise, without_boilerplate
from medllm.corpus.decontaminate.exam_items import ExamItem, Match
from medllm.corpus.decontaminate.matcher import index_of, match_in_slices, verdict
from medllm.corpus.decontaminate.ngrams import fold
from medllm.corpus.documents import AdmissionGate, Draft
from medllm.corpus.pii import PiiFinding, find, hide
from medllm.corpus.read.files import read_drafts
from medllm.corpus.read.sources import SourcePart

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


def kept_texts(work: Path, rank: int) -> int:
    """Return how many texts a task of the first pass kept."""
    return len(np.load(part(work, "facts", rank, "npy"), mmap_mode="r"))


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


BATCH = 200_000
"""Characters that are audited together: the arrays still fit in the processor's cache."""


class Read(PipelineStep):  # type: ignore[misc]
    """Reads the pieces of one task; an unreadable text is passed on with its reason."""

    type, name = "reader", "read"

    def __init__(self, tasks: Sequence[Sequence[SourcePart]], gate: AdmissionGate, work: Path) -> None:
        super().__init__()
        self.tasks = tasks
        self.gate = gate
        self.work = work

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Passing]:  # noqa: ANN401
        """Turn each draft into a document with dates and licence, or into a dropped text with the reason."""
        for draft in self._counted_drafts(rank):
            admitted = self.gate.admit(draft)
            metadata: dict[str, Any] = {"source": draft.source, "locator": draft.locator, "kind": draft.kind}
            metadata |= {"topic": draft.topic, "group": draft.group}
            if isinstance(admitted, str):
                metadata |= {"license": draft.license, "published": None, "exam_date": None, "reason": admitted}
            else:
                exam_date = admitted.exam_date.isoformat() if admitted.exam_date else None
                metadata |= {"license": admitted.license, "published": admitted.published.isoformat()}
                metadata |= {"exam_date": exam_date, "reason": None}
            yield Passing(draft.text, draft.id, metadata=metadata)

    def _counted_drafts(self, rank: int) -> Iterator[Draft]:
        """Yield the drafts of a task; note each second how many bytes of its pieces are done, and how many drafts."""
        done, drafts, noted = 0, 0, time.monotonic()
        note = part(self.work, "reached", rank, "txt")
        for piece in self.tasks[rank]:
            for draft in read_drafts(piece):
                yield draft
                drafts += 1
                if time.monotonic() - noted >= 1:
                    noted = time.monotonic()
                    note.write_text(f"{done} {drafts}", encoding="utf-8")
            done += piece.size
        note.write_text(f"{done} {drafts}", encoding="utf-8")


def read_reached(work: Path) -> tuple[int, int]:
    """Return how many bytes of the sources, and how many texts, all tasks have read so far; half a note counts as 0."""
    bytes_read = texts = 0
    for path in (work / "reached").glob("*.txt"):
        numbers = path.read_text("utf-8").split()
        if len(numbers) == 2:
            bytes_read, texts = bytes_read + int(numbers[0]), texts + int(numbers[1])
    return bytes_read, texts


class Clean(PipelineStep):  # type: ignore[misc]
    """Normalises the spelling of each text and drops texts that are not worth learning."""

    type, name = "filter", "clean"

    def __init__(self, limits: FilterLimits) -> None:
        super().__init__()
        self.limits = limits

    def run(self, data: Iterable[Passing], rank: int = 0, world_size: int = 1) -> Iterator[Passing]:
        """Normalise and filter each text; exam items skip the filters: they are short and their options repeat."""
        for document in data:
            document.text = normalise(document.text)
            if document.metadata["reason"] is None and not document.metadata["group"]:
                document.text, removed = without_boilerplate(document.text)
                document.metadata["reason"] = drop_reason(document.text, self.limits, removed)
            yield document


class Personal(PipelineStep):  # type: ignore[misc]
    """Finds names of patients; hides them in dropped texts, because dropped texts are shown too."""

    type, name = "filter", "personal data"

    def __init__(self, action: Literal["drop", "keep", "stop"], reviewed: frozenset[str]) -> None:
        super().__init__()
        self.action = action
        self.reviewed = reviewed

    def run(self, data: Iterable[Passing], rank: int = 0, world_size: int = 1) -> Iterator[Passing]:
        """Drop a document with a finding that no person has reviewed, unless the recipe keeps such documents."""
        for document in data:
            findings = find(document.text, document.id)
            standing = [finding for finding in findings if finding.id not in self.reviewed]
            if document.metadata["reason"] is None and standing and self.action == "drop":
                document.metadata["reason"] = (
                    f"personal_data: {', '.join(sorted({finding.rule for finding in standing}))}"
                )
            if document.metadata["reason"] is not None:
                document.text = hide(document.text, findings)
            document.metadata["personal"] = [finding_as_dict(finding) for finding in standing]
            yield document


def finding_as_dict(finding: PiiFinding) -> dict[str, str]:
    """Convert a finding for the report: its id, its rule and the hidden sentence, never the text that was found."""
    return {"finding": finding.id, "rule": finding.rule, "around": finding.around}


@dataclass(frozen=True)
class AuditConfig:
    """Settings of the leakage audit."""

    items: tuple[ExamItem, ...]
    drop: float = 0.5
    review: float = 0.3
    reviewed: frozenset[str] = frozenset()


class Leakage(PipelineStep):  # type: ignore[misc]
    """Compares every text with every held-out item."""

    type, name = "filter", "leakage"

    def __init__(self, audit: AuditConfig) -> None:
        super().__init__()
        self.audit = audit

    def run(self, data: Iterable[Passing], rank: int = 0, world_size: int = 1) -> Iterator[Passing]:
        """Drop a document at or over the drop threshold; pass every match on with its document."""
        index = index_of(self.audit.items, self.audit.review)
        for batch in batches(data):
            matches = match_in_slices(index, [document.text for document in batch])
            for document, (flagged, largest) in zip(batch, matches, strict=True):
                self._judge(document, flagged)
                document.metadata["traces"] = [[index.items[match.item].name, match.containment] for match in largest]
                document.metadata["leaks"] = [
                    {"item": index.items[match.item].name, "containment": match.containment, "part": match.part}
                    for match in flagged
                ]
                yield document

    def _judge(self, document: Passing, flagged: list[Match]) -> None:
        worst = max(flagged, key=lambda match: match.containment, default=None)
        if worst is None or document.id in self.audit.reviewed or document.metadata["reason"] is not None:
            return
        if verdict(worst.containment, drop=self.audit.drop, review=self.audit.review) == "drop":
            name = self.audit.items[worst.item].name
            document.metadata["reason"] = f"leak: {name} {worst.containment:.2f} ({worst.part})"


def batches(data: Iterable[Passing]) -> Iterator[list[Passing]]:
    """Group documents until they have some hundred thousand characters."""
    batch: list[Passing] = []
    held = 0
    for document in data:
        batch.append(document)
        held += len(document.text)
        if held >= BATCH:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch
