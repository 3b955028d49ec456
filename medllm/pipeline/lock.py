"""One run at a time in one work folder; a run that is killed leaves nothing locked."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medllm.errors import MedllmError


class BusyError(MedllmError):
    """Another run is at work on the same thing."""


@contextmanager
def exclusive_lock(folder: Path, what: str) -> Iterator[None]:
    """Hold the folder for ourselves; the system lets go of it when this process ends, however it ends.

    A lock of this process alone (`lockf`): one of the open file (`flock`) would live on in processes that a library
    forked and that outlive a run that is killed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (NotADirectoryError, FileExistsError, PermissionError) as fault:
        raise MedllmError(
            "stage.no-folder", f"{folder}: the folder cannot be created ({fault.strerror}). Name another with --work."
        ) from fault
    with (folder / "lock").open("a+", encoding="utf-8") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as fault:
            lock.seek(0)
            who = lock.read().strip() or "another run"
            raise BusyError(
                "stage.busy", f"{what}: {who} is building it right now in {folder}. Wait for it, then run again."
            ) from fault
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        yield
