"""Curation as datatrove pipelines, one after the other; after a kill they resume where they stopped."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datatrove.pipeline.base import PipelineStep

from medllm.corpus.clean.filters import FilterLimits
from medllm.corpus.dedup.minhash import CONFIG, Buckets, Signatures
from medllm.corpus.dedup.resolve import Resolve
from medllm.corpus.documents import AdmissionGate
from medllm.corpus.intermediate import WriteIntermediate, part
from medllm.corpus.read.sources import SourcePart, TextSource, split_into_tasks
from medllm.corpus.stats import Counts
from medllm.corpus.steps import AuditConfig, Clean, Leakage, Personal, Read
from medllm.corpus.write import WriteTables
from medllm.files import write_text

PASSES = ("read", "pairs", "resolve", "finish")
"""Passes in this order. Each waits for the one before it; the tasks within one do not wait for each other."""


@dataclass(frozen=True)
class Curation:
    """All settings that decide the output of a curation."""

    sources: tuple[TextSource, ...]
    gate: AdmissionGate
    limits: FilterLimits
    audit: AuditConfig
    personal: Personal
    alike: float
    """Similarity from which the younger of two texts is removed; above 1 only exact duplicates are."""
    replay: float = 0.0
    tokenizer: Path | None = None


@dataclass(frozen=True)
class Pass:
    """One datatrove pipeline, the same on every executor."""

    name: str
    curation: Curation
    pieces: Sequence[Sequence[SourcePart]]
    """Source parts that each task of the first pass reads."""

    @property
    def tasks(self) -> int:
        """Return the number of tasks of this pass."""
        buckets: int = CONFIG.num_buckets
        return {"pairs": buckets, "resolve": 1}.get(self.name, len(self.pieces))

    def steps(self, work: Path) -> list[PipelineStep]:
        """Build the steps, with their files in a work folder."""
        curation = self.curation
        if self.name == "pairs":
            return [Buckets(work)]
        if self.name == "resolve":
            return [Resolve(work, len(self.pieces), curation.alike, curation.replay)]
        if self.name == "finish":
            return [WriteTables(work, curation.audit, curation.tokenizer)]
        read = [Read(self.pieces, curation.gate), Clean(curation.limits), curation.personal, Leakage(curation.audit)]
        return [*read, WriteIntermediate(work), Signatures(work)]


Executor = Callable[[Pass, Path], Any]
"""Runs a pass to its end in a work folder; a task with a mark there is not done again."""


def curate(curation: Curation, work: Path, *, executor: Executor, mark: str) -> Counts:
    """Run the passes that are not done yet; write Parquet files to `work/made`.

    `mark` names inputs and settings: work that was begun for other ones is deleted.
    """
    _begin(work, mark)
    pieces = split_into_tasks(curation.sources)
    for name in PASSES:
        executor(Pass(name, curation, pieces), work)
    counts = Counts()
    for task in range(len(pieces)):
        counts.add(Counts.read(json.loads(part(work, "counts", task, "json").read_text("utf-8"))))
    return counts


def _begin(work: Path, mark: str) -> None:
    note = work / "mark"
    if note.exists() and note.read_text("utf-8") == mark:
        return
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    write_text(note, mark)
