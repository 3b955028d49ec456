"""Curation as datatrove pipelines, one after the other; after a kill they resume where they stopped."""

import json
import shutil
from pathlib import Path

from medllm.corpus.executors import Executor
from medllm.corpus.intermediate import part
from medllm.corpus.plan import PASSES, Curation, Pass
from medllm.corpus.read.sources import split_into_tasks
from medllm.corpus.stats import Counts
from medllm.files import write_text


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
