"""Passes spread over Jobs of the Hub, which share no disk: each fetches what it needs and sends what it made."""

import hashlib
import shutil
import tempfile
import types
import zipfile
from collections.abc import Callable
from contextlib import suppress
from fnmatch import fnmatch
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from datatrove.executor import JobsPipelineExecutor
from datatrove.io import DataFolder, get_datafolder
from datatrove.utils.logging import logger

from medllm.corpus.passes import PASSES, RESULTS, Needs, Pass
from medllm.corpus.tasks import started, whole
from medllm.errors import DataError

PACKAGE = Path(__file__).parent.parent
SENT = ("__init__.py", "errors.py", "exam", "corpus")
"""What of the package a pass is made of."""
LIBRARIES = ("datatrove[io]", "huggingface_hub", "numpy", "pyarrow", "pydantic", "pypdf", "pyyaml", "tokenizers")
"""What the passes import; a Job gets the versions of here, because other versions might make other bytes."""


def jobs(workers: int, *, store: str = "", **options: Any) -> Callable[[Pass, Path], None]:  # noqa: ANN401
    """Runs so many Jobs at once; `store` is a folder that they and this machine reach, best one in a bucket of yours.

    This machine sends the sources and the package there, waits, and fetches the tables. The options are those of
    datatrove's executor. What lies in the store is thrown away when the tables are here.
    """
    if not store:
        raise DataError("corpus.executor: jobs needs `store` under `options`, as hf://buckets/ORG/NAME.")

    def run(one: Pass, work: Path) -> None:
        logger.disable("datatrove")
        here = work / "marks" / one.name
        if here.exists():
            return
        begun = hashlib.sha256((work / "mark").read_bytes()).hexdigest()[:16]
        place = f"{store.rstrip('/')}/{begun}"
        # The Hub stops a Job after 30 minutes unless told otherwise.
        told = {"workers": workers, "dependencies": _libraries(), "job_name": f"corpus-{one.name}", "timeout": "6h"}
        made = {"tasks": one.tasks, "logging_dir": f"{place}/marks/{one.name}"}
        make = partial(JobsPipelineExecutor, [_bootstrap(one, place)], **{**told, **options, **made})
        job = _asked(partial(started, "jobs", make))
        _asked(partial(_send_sources, one, place, job))
        _asked(job.run)
        job.logging_dir.fs.invalidate_cache()
        whole(one, job, job.get_incomplete_ranks())
        shared = get_datafolder(place)
        if one.name == PASSES[-1]:
            _fetch(shared, RESULTS, work)
        here.mkdir(parents=True)
        if one.name == PASSES[-1]:
            shared.rm("", recursive=True)

    return run


def _asked(question: Callable[[], Any]) -> Any:  # noqa: ANN401  whatever the question gives
    """A store that is no store, or no token, told as faults of the recipe."""
    try:
        return question()
    except (ValueError, FileNotFoundError) as fault:
        raise DataError(f"corpus.executor: jobs: {fault}") from None


def _libraries() -> list[str]:
    found = []
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            found.append(f"{name}=={version(name.partition('[')[0])}")
    return found


def _name(path: Path) -> str:
    """The folder of the store in which a file from outside the work folder lies."""
    return f"given/{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"


def _send_sources(one: Pass, place: str, job: Any) -> None:  # noqa: ANN401  datatrove's executor
    """The package and every file of the sources, once for all passes."""
    job._ensure_logging_dir_repo()  # it makes the bucket, which nothing else does before the first file is sent
    shared = get_datafolder(place)
    if shared.isfile("sent"):
        return
    with tempfile.TemporaryDirectory() as aside:
        packed = Path(aside) / "package.zip"
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in (found for name in SENT for found in _files(PACKAGE / name)):
                if "__pycache__" not in path.parts:
                    archive.write(path, path.relative_to(PACKAGE.parent))
        shared.put_file(str(packed), "package.zip")
    given = {piece.path for pieces in one.pieces for piece in pieces}
    tokenizer = one.curation.tokenizer
    for path in sorted(given | ({tokenizer / "tokenizer.json"} if tokenizer else set())):
        for file in _files(path):
            within = f"in/{file.relative_to(path).as_posix()}" if path.is_dir() else f"one/{file.name}"
            shared.put_file(str(file), f"{_name(path)}/{within}")
    with shared.open("sent", "w") as stream:
        stream.write("all")


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def _fetch(shared: DataFolder, needs: Needs, to: Path) -> None:
    """Unpack the files that are needed out of what the tasks of the passes before have sent, a zip archive of each."""
    shared.fs.invalidate_cache()
    for tasks, files in needs:
        sent = shared.list_files(f"passes/{tasks.partition('/')[0]}")
        for name in (name for name in sent if fnmatch(name, f"passes/{tasks}")):
            # Of an archive only its list and the files that are wanted are read, a megabyte at a time.
            with shared.open(name, "rb", block_size=1 << 20) as stream, zipfile.ZipFile(stream) as archive:
                for file in archive.namelist():
                    if any(fnmatch(file, pattern) for pattern in files):
                        archive.extract(file, to)


def _fetch_given(shared: DataFolder, path: Path, to: Path) -> Path:
    """A file or folder of the sources, for a task that reads it."""
    sent = shared.list_files(_name(path))
    for name in sent:
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        with shared.open(name, "rb") as source, (to / name).open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 22)
    folder = to / _name(path)
    return folder / "in" if (folder / "in").is_dir() else folder / "one" / path.name


def _bootstrap(one: Pass, place: str) -> Callable[..., Any]:
    """The one step of a Job's pipeline: it lays the package out and then works.

    A Job unpickles it before the package is there, so it must not speak of the package: it travels as bare code.
    """
    import dill

    code = _bootstrap_in_job.__code__
    bare: dict[str, Any] = {"__name__": "__main__"}
    return types.FunctionType(code, bare, "bootstrap", (place, dill.dumps(one)))


def _bootstrap_in_job(data: Any, rank: int, world_size: int, place: str, held: bytes) -> None:  # noqa: ANN401
    import atexit
    import os
    import shutil
    import sys
    import tempfile
    import zipfile

    import dill
    from datatrove.io import get_datafolder

    package = os.path.join(tempfile.gettempdir(), f"medllm-{os.getpid()}")  # noqa: PTH118  bare code
    if package not in sys.path:
        with get_datafolder(place).open("package.zip", "rb") as stream, zipfile.ZipFile(stream) as archive:
            archive.extractall(package)
        sys.path.insert(0, package)
        atexit.register(shutil.rmtree, package, True)
    from medllm.corpus.jobs import work_off

    # From our own store, as the executor itself, which datatrove hands on in the same way.
    work_off(dill.loads(held), place, rank)  # noqa: S301


def work_off(one: Pass, place: str, rank: int) -> None:
    """One task of a pass on a disk of its own: fetch, work, send; its mark is datatrove's, set when this returns."""
    print(f"task {rank} of {one.name} by {PACKAGE}", flush=True)  # noqa: T201  the Job's log
    shared = get_datafolder(place)
    with tempfile.TemporaryDirectory() as aside:
        work = Path(aside) / "work"
        work.mkdir()

        _fetch(shared, one.needs(rank), work)
        fetched = set(work.rglob("*"))
        data: Any = None
        for step in one.moved(rank, lambda path: _fetch_given(shared, path, Path(aside))).steps(work):
            data = step(data, rank, one.tasks)
        packed = Path(aside) / "made.zip"
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for path in sorted(set(work.rglob("*")) - fetched):
                if path.is_file():
                    archive.write(path, path.relative_to(work).as_posix())
        shared.put_file(str(packed), f"passes/{one.name}/{rank:05d}.zip")
