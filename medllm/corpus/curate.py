"""Curation as datatrove pipelines: which passes there are, how work is parted, and how it goes on after a kill."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datatrove.pipeline.base import PipelineStep

from medllm.corpus.counts import Counts
from medllm.corpus.documents import Gate
from medllm.corpus.duplicates import CONFIG, Buckets, Signatures
from medllm.corpus.executors import Executor, Pass
from medllm.corpus.filters import Limits
from medllm.corpus.finish import Finish
from medllm.corpus.keeping import Keep, part
from medllm.corpus.resolve import Resolve
from medllm.corpus.sources import PIECE, Piece, Source, cut
from medllm.corpus.steps import Audit, Clean, Leakage, Personal, Read


@dataclass(frozen=True)
class Curation:
    """Everything that decides what comes out."""

    sources: tuple[Source, ...]
    gate: Gate
    limits: Limits
    audit: Audit
    personal: Personal
    alike: float
    """Similarity from which the younger of two texts goes; above 1 only exact duplicates do."""
    replay: float = 0.0
    tokenizer: Path | None = None


def parted(sources: Sequence[Source]) -> list[list[Piece]]:
    """The pieces of all sources in tasks of like size; it depends on the files alone, not on the workers."""
    tasks: list[list[Piece]] = [[]]
    held = 0
    for piece in (piece for source in sources for piece in cut(source)):
        if tasks[-1] and held + piece.size > PIECE:
            tasks.append([])
            held = 0
        tasks[-1].append(piece)
        held += piece.size
    return tasks


def passes(curation: Curation, work: Path) -> list[Pass]:
    """The passes in order. Each waits for the one before it; the tasks within one do not wait for each other."""
    tasks = parted(curation.sources)
    first: list[PipelineStep] = [
        Read(tasks, curation.gate),
        Clean(curation.limits),
        curation.personal,
        Leakage(curation.audit),
        Keep(work),
        Signatures(work),
    ]
    return [
        Pass("read", first, len(tasks)),
        Pass("pairs", [Buckets(work)], CONFIG.num_buckets),
        Pass("resolve", [Resolve(work, len(tasks), curation.alike, curation.replay)], 1),
        Pass("finish", [Finish(work, curation.audit, curation.tokenizer)], len(tasks)),
    ]


def curate(curation: Curation, work: Path, *, executor: Executor, mark: str) -> Counts:
    """Run what of the passes is not done yet; Parquet files then lie under `work/made`.

    `mark` names inputs and settings: work that was begun for others is thrown away.
    """
    _begin(work, mark)
    planned = passes(curation, work)
    for one in planned:
        executor(one, work / "marks" / one.name)
    counts = Counts()
    for task in range(planned[0].tasks):
        counts.add(Counts.read(json.loads(part(work, "counts", task, "json").read_text("utf-8"))))
    return counts


def _begin(work: Path, mark: str) -> None:
    note = work / "mark"
    if note.exists() and note.read_text("utf-8") == mark:
        return
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    aside = work / "mark.new"
    aside.write_text(mark, "utf-8")
    aside.replace(note)
