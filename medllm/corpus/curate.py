"""Curation as datatrove pipelines: which passes there are, how work is parted, and how it goes on after a kill."""

import io
import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster
from datatrove.utils.logging import logger

from medllm.corpus.counts import Counts
from medllm.corpus.documents import Gate
from medllm.corpus.duplicates import CONFIG, Resolve, Signatures
from medllm.corpus.filters import Limits
from medllm.corpus.finish import Finish
from medllm.corpus.keeping import Keep, part
from medllm.corpus.sources import PIECE, Piece, Source, cut
from medllm.corpus.steps import Audit, Clean, Leakage, Personal, Read
from medllm.errors import DataError, MedllmError


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


@dataclass(frozen=True)
class Pass:
    """One datatrove pipeline: on another executor it is the same pipeline."""

    name: str
    steps: list[PipelineStep]
    tasks: int


Executor = Callable[[Pass, Path], Any]
"""Runs a pass to its end with the given folder for its marks; `local` is one."""


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
    # A hundred signatures are read at a time; datatrove's five make its merge wait for the disk.
    buckets = MinhashDedupBuckets(str(work / "signatures"), str(work / "pairs"), config=CONFIG, lines_to_buffer=100)
    cluster = MinhashDedupCluster(
        str(work / "pairs"), str(work / "clusters"), config=CONFIG, save_cluster_id=True, lines_to_buffer=1000
    )
    return [
        Pass("read", first, len(tasks)),
        Pass("pairs", [buckets], CONFIG.num_buckets),
        Pass("clusters", [cluster], 1),
        Pass("resolve", [Resolve(work, len(tasks), curation.alike, curation.replay)], 1),
        Pass("finish", [Finish(work, curation.audit, curation.tokenizer)], len(tasks)),
    ]


class _Quiet(LocalPipelineExecutor):  # type: ignore[misc]
    """The local executor without its log on the terminal, and with faults that find their way out of a process."""

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> Any:  # noqa: ANN401
        logger.disable("datatrove")
        try:
            with redirect_stderr(io.StringIO()):
                return super()._run_for_rank(rank, local_rank, node_rank)
        except MedllmError as fault:
            # Only an exception of one argument survives the way between processes.
            raise DataError(str(fault)) from None


def local(workers: int) -> Executor:
    """Runs passes on this machine with so many processes."""

    def run(one: Pass, marks: Path) -> Any:  # noqa: ANN401
        logger.disable("datatrove")
        # The executor writes a mark for each task that is done, and skips those that have one.
        return _Quiet(one.steps, tasks=one.tasks, workers=min(workers, one.tasks), logging_dir=str(marks)).run()

    return run


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
