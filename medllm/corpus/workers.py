"""Processes that share the tasks of a pass and end with the run that started them, also when it is killed."""

import fcntl
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import IO

_held: list[IO[str]] = []
"""The open, locked file that shows that this worker is alive."""


def in_processes(do: Callable[[int], object], tasks: Sequence[int], workers: int, folder: Path) -> None:
    """Run the tasks in `workers` other processes; with one worker, in this process.

    Workers of a killed run in this folder end first: two processes never write the files of one task.
    """
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / "at-work"
    with note.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # its last worker has ended
    if workers == 1:
        for task in tasks:
            do(task)
        return
    pool = multiprocessing.get_context("forkserver").Pool(min(workers, len(tasks)), begin, (str(note),))
    with pool:
        for _ in pool.imap_unordered(do, tasks):
            pass


def begin(note: str | None = None) -> None:
    """Make this worker end with the process that started it, and hold the lock of living workers until then."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run hears Ctrl-C and ends its workers
    if note is not None:
        _held.append(Path(note).open("a"))  # noqa: SIM115  held until the process ends, however it ends
        fcntl.flock(_held[-1], fcntl.LOCK_SH)
    started_by = multiprocessing.parent_process()
    if started_by is None:
        raise RuntimeError("only a worker process has a parent to end with")

    def end() -> None:
        wait([started_by.sentinel])
        os._exit(1)

    threading.Thread(target=end, name="ends with the run", daemon=True).start()
