"""The settings of a curation, and its passes as lists of datatrove steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datatrove.pipeline.base import PipelineStep

from medllm.corpus.clean.filters import FilterLimits
from medllm.corpus.dedup.minhash import CONFIG, Buckets, Signatures
from medllm.corpus.dedup.resolve import Resolve
from medllm.corpus.documents import AdmissionGate
from medllm.corpus.intermediate import WriteIntermediate
from medllm.corpus.read.sources import SourcePart, TextSource
from medllm.corpus.steps import AuditConfig, Clean, Leakage, Personal, Read
from medllm.corpus.write import WriteTables

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
        told = self.curation
        if self.name == "pairs":
            return [Buckets(work)]
        if self.name == "resolve":
            return [Resolve(work, len(self.pieces), told.alike, told.replay)]
        if self.name == "finish":
            return [WriteTables(work, told.audit, told.tokenizer)]
        read = [Read(self.pieces, told.gate), Clean(told.limits), told.personal, Leakage(told.audit)]
        return [*read, WriteIntermediate(work), Signatures(work)]
