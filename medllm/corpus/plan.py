"""What a curation is told, and its passes: which datatrove steps each is."""

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
"""In this order. Each waits for the one before it; the tasks within one do not wait for each other."""


@dataclass(frozen=True)
class Curation:
    """Everything that decides what comes out."""

    sources: tuple[TextSource, ...]
    gate: AdmissionGate
    limits: FilterLimits
    audit: AuditConfig
    personal: Personal
    alike: float
    """Similarity from which the younger of two texts goes; above 1 only exact duplicates do."""
    replay: float = 0.0
    tokenizer: Path | None = None


@dataclass(frozen=True)
class Pass:
    """One datatrove pipeline: on another executor it is the same pipeline."""

    name: str
    curation: Curation
    pieces: Sequence[Sequence[SourcePart]]
    """What each task of the first pass reads."""

    @property
    def tasks(self) -> int:
        """Into how many tasks it is parted."""
        buckets: int = CONFIG.num_buckets
        return {"pairs": buckets, "resolve": 1}.get(self.name, len(self.pieces))

    def steps(self, work: Path) -> list[PipelineStep]:
        """The steps, with their files in a work folder."""
        told = self.curation
        if self.name == "pairs":
            return [Buckets(work)]
        if self.name == "resolve":
            return [Resolve(work, len(self.pieces), told.alike, told.replay)]
        if self.name == "finish":
            return [WriteTables(work, told.audit, told.tokenizer)]
        read = [Read(self.pieces, told.gate), Clean(told.limits), told.personal, Leakage(told.audit)]
        return [*read, WriteIntermediate(work), Signatures(work)]
