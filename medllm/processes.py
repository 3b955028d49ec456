"""Child processes that end with their parent, also when it is killed.

A child waits in a thread for the end of a pipe that only its parent holds. A program that is not ours runs in a process
group under a guard: this file as a script, so it imports the standard library only.
"""

import contextlib
import fcntl
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import IO, Any

PATIENCE = 5.0
"""Seconds between asking a process group to end (SIGTERM) and killing it (SIGKILL)."""

_locks: list[IO[str]] = []
"""The open, locked file that shows that this worker is alive."""


def exit_after(parent_ends: Callable[[], object], code: int = 1) -> None:
    """Exit this process at once when `parent_ends` returns; it waits in a thread."""

    def end() -> None:
        parent_ends()
        os._exit(code)

    threading.Thread(target=end, name="ends with the parent", daemon=True).start()


def exit_with_stdin() -> None:
    """Exit this process when stdin closes, as it does when the parent that holds its other end dies."""
    exit_after(lambda: os.read(0, 1))


def run_in_workers(do: Callable[[int], object], tasks: Sequence[int], workers: int, folder: Path) -> None:
    """Run the tasks in `workers` other processes; with one worker, in this process.

    Workers of a killed run in this folder end first: two processes never write the files of one task.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / "at-work"
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # its last worker has ended
    if workers == 1:
        for task in tasks:
            do(task)
        return
    pool = multiprocessing.get_context("forkserver").Pool(min(workers, len(tasks)), begin_worker, (str(lock),))
    with pool:
        for _ in pool.imap_unordered(do, tasks):
            pass


def begin_worker(lock: str | None = None) -> None:
    """Make this worker of a pool end with the process that started it, and share the lock until then."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run receives Ctrl-C and ends its workers
    if lock is not None:
        _locks.append(Path(lock).open("a"))  # noqa: SIM115  open until the process ends, however it ends
        fcntl.flock(_locks[-1], fcntl.LOCK_SH)
    parent = multiprocessing.parent_process()
    if parent is None:
        raise RuntimeError("only a worker process has a parent to end with")
    exit_after(lambda: wait([parent.sentinel]))


def start_guarded(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:  # noqa: ANN401  Popen's
    """Start a program in a process group that ends with it, with this process, or when `stdin` of the result closes.

    The guard has a session of its own: Ctrl-C in the terminal reaches this process only. Exit code 127: not found.
    """
    words = [sys.executable, "-I", __file__, *command]
    return subprocess.Popen(words, stdin=subprocess.PIPE, start_new_session=True, **options)


def _guard(command: list[str]) -> int:
    """Run the command in a new process group, leave nothing of the group, and return the command's exit code."""
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    except OSError as fault:
        print(f"cannot run {command[0]}: {fault.strerror}", flush=True)  # noqa: T201  stdout is the program's log
        return 127
    threading.Thread(target=_end_group_with_stdin, args=(child.pid,), daemon=True).start()
    code = child.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    return code if code >= 0 else 128 - code


def _end_group_with_stdin(group: int) -> None:
    os.read(0, 1)  # returns when the parent closes the pipe, on purpose or by dying
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            time.sleep(0.05)
            os.killpg(group, 0)
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(_guard(sys.argv[1:]))
