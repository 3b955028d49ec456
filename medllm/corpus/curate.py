"""Curation as datatrove pipelines that resume after a kill, and their executors: this machine, Slurm or Ray."""

import copy
import io
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from datatrove.executor import LocalPipelineExecutor, SlurmPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.utils.logging import logger

from medllm.corpus.cleaning import FilterLimits
from medllm.corpus.dedup import CONFIG, Buckets, Resolve, Signatures
from medllm.corpus.documents import AdmissionGate
from medllm.corpus.read.sources import SourcePart, TextSource, split_into_tasks
from medllm.corpus.steps import (
    AuditConfig,
    Clean,
    Leakage,
    Personal,
    Read,
    WriteIntermediate,
    kept_texts,
    part,
    read_reached,
)
from medllm.corpus.write import Counts, WriteTables
from medllm.errors import DataError, MedllmError
from medllm.files import write_text
from medllm.processes import run_in_workers
from medllm.work_progress import WorkProgress, watched

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
    forgotten: frozenset[str] = frozenset()
    """The sha256 of each text that was withdrawn."""


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
            return [WriteTables(work, curation.audit, curation.tokenizer, curation.forgotten)]
        read = [
            Read(self.pieces, curation.gate, work),
            Clean(curation.limits),
            curation.personal,
            Leakage(curation.audit),
        ]
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


POLL_SECONDS = 10.0
"""Seconds between two checks of a cluster's queue."""
Kind = Literal["local", "slurm", "ray"]
Options = Mapping[str, Any]


PARTS = {
    "read": "reading and checking",
    "pairs": "looking for duplicates",
    "resolve": "choosing among duplicates",
    "finish": "writing",
}
"""What each pass does, in the words of its progress."""


def _shown(part: Pass, work: Path) -> AbstractContextManager[None]:
    """Report while the block runs how much of a pass is done: bytes of the sources, or texts of its ended tasks."""
    completions = Path(_marks(part, work)) / "completions"
    size = sum(piece.size for pieces in part.pieces for piece in pieces)
    texts = [] if part.name == "read" else [kept_texts(work, task) for task in range(len(part.pieces))]

    def state() -> WorkProgress:
        what, ended = PARTS.get(part.name, part.name), {int(mark.name) for mark in completions.glob("*")}
        if part.name == "read" and size:
            reached, read = read_reached(work)
            return WorkProgress(what, min(reached, size), size, "bytes", also=f"{read:,} texts")
        if part.name == "finish":
            return WorkProgress(what, sum(texts[task] for task in ended), sum(texts), "texts")
        return WorkProgress(what, len(ended), part.tasks, "parts", also=f"{sum(texts):,} texts" if texts else "")

    return watched(state)


class _Quiet(LocalPipelineExecutor):  # type: ignore[misc]
    """The local executor without its log on the terminal; errors of its processes reach the caller."""

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> Any:  # noqa: ANN401
        logger.disable("datatrove")
        try:
            with redirect_stderr(io.StringIO()):
                return super()._run_for_rank(rank, local_rank, node_rank)
        except MedllmError as fault:
            # A subclass with other arguments does not survive the transfer between processes.
            raise DataError(fault.code, str(fault)) from None

    def run(self) -> Any:  # noqa: ANN401  datatrove's returns statistics
        """Run the tasks without a mark; datatrove's own `run` starts a process that outlives a killed run."""
        if left := self.get_incomplete_ranks():
            run_in_workers(self._apart, left, self.workers, Path(self.logging_dir.path))
        return left

    def _apart(self, rank: int) -> None:
        own = copy.copy(self)
        own.pipeline = copy.deepcopy(self.pipeline)  # the steps count, and each task counts for itself
        own._run_for_rank(rank)


class _OnRay(_Quiet):
    """Each task as a task of Ray. datatrove's own executor starts an actor for it that forks below Ray's threads.

    Such a process may hang for ever after its last task, and errors of Ray are lost.
    """

    def __init__(
        self,
        pipeline: list[PipelineStep],
        *,
        tasks: int,
        workers: int,
        logging_dir: str,
        cpus_per_task: float = 1,
        mem_per_cpu_gb: float = 2,
        ray_remote_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(pipeline, tasks=tasks, workers=workers, logging_dir=logging_dir)
        memory = int(mem_per_cpu_gb * cpus_per_task * 2**30)
        self._asked = {"num_cpus": cpus_per_task, "memory": memory, **(ray_remote_kwargs or {})}

    def run(self) -> Any:  # noqa: ANN401  as above
        """Run the tasks without a mark, `workers` at once; report the error of a source as the local executor does."""
        import ray

        task = ray.remote(**self._asked)(_rank)
        held, left = ray.put(self), self.get_incomplete_ranks()
        running: list[Any] = []
        for rank in left:
            if len(running) >= self.workers:
                done, running = ray.wait(running)
                _tell(done)
            running.append(task.remote(held, rank))
        _tell(running)
        return left


def _rank(job: _OnRay, rank: int) -> None:
    job._apart(rank)


def _tell(done: list[Any]) -> None:
    """Wait for tasks of Ray; raise the error of a source; the missing mark of any other failed task names it."""
    import ray

    for shard in done:
        try:
            ray.get(shard)
        except ray.exceptions.RayTaskError as fault:
            if isinstance(fault.cause, MedllmError):
                raise DataError(fault.cause.code, str(fault.cause)) from None
        except ray.exceptions.RayError:
            continue


class _Submitted(SlurmPipelineExecutor):  # type: ignore[misc]
    """The Slurm executor without the extra job that sums up statistics, which no one reads."""

    def launch_merge_stats(self) -> None:
        """Launch nothing."""


def executor(kind: Kind, workers: int, options: Options) -> Executor:
    """Return the executor that the recipe names; the options are those of datatrove's executor of that kind."""
    return {"local": local, "slurm": slurm, "ray": ray}[kind](workers, **options)


def local(workers: int) -> Executor:
    """Return an executor that runs passes on this machine with `workers` processes."""

    def run(part: Pass, work: Path) -> Any:  # noqa: ANN401
        logger.disable("datatrove")
        made = {"tasks": part.tasks, "workers": min(workers, part.tasks), "logging_dir": _marks(part, work)}
        with _shown(part, work):
            return _Quiet(part.steps(work), **made).run()

    return run


def slurm(workers: int, **options: Any) -> Executor:  # noqa: ANN401  they are datatrove's
    """Return an executor that submits each pass by `sbatch` and waits for its end; the nodes share the work folder.

    The nodes use the Python that submits, unless an option (`env_command`, `venv_path`, `condaenv`) names another.
    """
    if missing := [name for name in ("partition", "time") if name not in options]:
        raise DataError(
            "corpus.executor-option-missing",
            f"corpus.executor: slurm needs {' and '.join(missing)} under `options`. Add it.",
        )
    here = f'export PATH="{Path(sys.executable).parent}:$PATH"'
    ways = ("env_command", "venv_path", "condaenv")
    settings = {"qos": "", **({} if any(way in options for way in ways) else {"env_command": here}), **options}

    def run(part: Pass, work: Path) -> None:
        logger.disable("datatrove")
        made = {"tasks": part.tasks, "workers": workers, "logging_dir": _marks(part, work)}
        job = _construct(
            "slurm", lambda: _Submitted(part.steps(work), **{**made, "job_name": f"corpus-{part.name}", **settings})
        )
        _run("slurm", "Run this where `sbatch` is.", job)
        with _shown(part, work):
            _wait(job)
        # Checked again: the last task may have ended between the check of its mark and the check of the queue.
        _require_complete(part, job, job.get_incomplete_ranks())

    return run


def ray(workers: int, **options: Any) -> Executor:  # noqa: ANN401  named as datatrove's
    """Return an executor for the tasks of each pass on the Ray cluster of RAY_ADDRESS, or on one started here.

    The options are `cpus_per_task`, `mem_per_cpu_gb` and `ray_remote_kwargs`.
    """

    def run(part: Pass, work: Path) -> None:
        logger.disable("datatrove")
        made = {"tasks": part.tasks, "workers": min(workers, part.tasks), "logging_dir": _marks(part, work)}
        job = _construct("ray", lambda: _OnRay(part.steps(work), **{**made, **options}))
        with _shown(part, work):
            _run("ray", "Install it: pip install ray.", job)
        _require_complete(part, job, job.get_incomplete_ranks())

    return run


def _marks(part: Pass, work: Path) -> str:
    return str(work / "marks" / part.name)


def _run(kind: Kind, mend: str, job: Any) -> None:  # noqa: ANN401  one of datatrove's executors
    try:
        job.run()
    except (FileNotFoundError, ImportError) as fault:
        raise DataError("corpus.executor-not-found", f"corpus.executor: {kind} not found ({fault}). {mend}") from None
    except subprocess.CalledProcessError as fault:
        raise DataError(
            "corpus.sbatch-refused",
            f"corpus.executor: sbatch refused the job with code {fault.returncode}. Check `options`.",
        ) from None


def _wait(job: Any) -> None:  # noqa: ANN401  one of datatrove's executors
    """Wait until a job on Slurm has done its tasks, or left the queue."""
    while job.get_incomplete_ranks() and _queued(str(job.job_id)):
        time.sleep(POLL_SECONDS)


def _queued(job: str) -> bool:
    """Return whether Slurm still has tasks of a job to run; a controller that does not answer is asked again."""
    done = subprocess.run(["squeue", "--noheader", "--jobs", job], capture_output=True, text=True, check=False)
    return bool(done.stdout.strip()) if done.returncode == 0 else "Invalid job id" not in done.stderr


def _construct(kind: Kind, make: Callable[[], Any]) -> Any:  # noqa: ANN401  one of datatrove's executors
    """Make an executor, or name the options that it does not know."""
    try:
        return make()
    except TypeError as error:
        raise DataError(
            "corpus.unknown-executor-option",
            f"corpus.executor: {kind} does not know these options: {error}. Remove them.",
        ) from None


def _require_complete(part: Pass, job: Any, left: list[int]) -> None:  # noqa: ANN401  one of datatrove's executors
    """Wait a little for marks that a shared disk shows late, then name the tasks without one as failed."""
    for _ in range(3):
        if left:
            time.sleep(min(POLL_SECONDS, 5))
            left = job.get_incomplete_ranks()
    if left:
        raise DataError(
            "corpus.tasks-failed",
            f"corpus: {len(left)} of {part.tasks} tasks of the pass `{part.name}` did not finish, first {left[0]}. "
            f"Their logs are in {job.logging_dir.path}. Rerun the same command to resume.",
        )
