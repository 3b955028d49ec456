"""How far the work is: any process that works writes it into a file, and the one that waits reads and shows it.

The file is named by an environment variable, so that the processes of a stage write to the same one. Where none is
named, nothing is written.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from medllm.files import write_text

FILE = "MEDLLM_PROGRESS"
"""The environment variable that names the file."""
EVERY = 1.0
"""Seconds between two writes."""
T = TypeVar("T")
_last = [0.0]


@dataclass(frozen=True)
class WorkProgress:
    """How far one part of a stage is."""

    what: str
    """The part, as "a, b" of the models that are asked; may be empty."""
    done: int
    total: int
    unit: str
    """What is counted, in the plural: replies, documents, shards."""
    tokens: int = 0
    """Tokens written by this part so far, where it writes any."""
    most_tokens: int = 0
    """Tokens that this part writes at most."""
    tokens_settled: int = 0
    """Of `most_tokens`: the room of the parts that are done, and the tokens written of those under way."""
    tokens_read: int = 0
    """Tokens of prompts read by this part so far, where it reads any."""
    also: str = ""
    """What else is known so far, as "640 texts", or the parts that are begun, each with its own count."""


def report_progress(progress: WorkProgress, *, now: bool = False) -> None:
    """Write down how far the work is, at most once a second unless `now`."""
    path = os.environ.get(FILE)
    if path is None or not (now or time.monotonic() - _last[0] >= EVERY):
        return
    _last[0] = time.monotonic()
    try:
        write_text(Path(path), json.dumps(asdict(progress), ensure_ascii=False))
    except OSError:  # the work itself reports a full disk
        return


def read_progress(path: Path) -> WorkProgress | None:
    """Read how far the work is; None where nothing is written yet."""
    try:
        return WorkProgress(**json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


@contextmanager
def progress_in(path: Path) -> Iterator[None]:
    """Have the work in this block, and the processes it starts, report into this file; at the end it is removed."""
    before = os.environ.get(FILE)
    os.environ[FILE] = str(path.absolute())
    try:
        yield
    finally:
        os.environ.pop(FILE)
        if before is not None:
            os.environ[FILE] = before
        path.unlink(missing_ok=True)


def counted(items: Iterable[T], total: int, unit: str, what: str = "") -> Iterator[T]:
    """Yield the items, and report how many of them are done."""
    for number, item in enumerate(items):
        report_progress(WorkProgress(what, number, total, unit))
        yield item
    report_progress(WorkProgress(what, total, total, unit), now=True)


@contextmanager
def watched(state: Callable[[], WorkProgress]) -> Iterator[None]:
    """Report the state of the work in this block each second, from a thread: also while one call takes minutes."""
    if FILE not in os.environ:
        yield
        return
    with poll_in_background(lambda: report_progress(state()), EVERY, "progress"):
        yield
    report_progress(state(), now=True)


@contextmanager
def poll_in_background(check: Callable[[], None], every: float, name: str) -> Iterator[None]:
    """Call `check` every so many seconds while the block runs; at its end wait for a call that is under way."""
    done = threading.Event()

    def poll() -> None:
        while not done.wait(every):
            check()

    thread = threading.Thread(target=poll, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
