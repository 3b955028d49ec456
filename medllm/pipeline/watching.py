"""How far a stage has come: what of its sources is here, then from its log the share done, loss and time left."""

import json
import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from medllm.pipeline.beside import beside
from medllm.pipeline.plan import Item
from medllm.recipe.training import Training

EVERY = 2.0
"""Seconds between two looks."""


@contextmanager
def watched(item: Item, part: Path, progress: Callable[[str], None]) -> Iterator[None]:
    """Tell how far the stage has come while it is at work; stages without a log are not watched."""
    start = time.monotonic()
    first: list[float] = []

    def look() -> None:
        line = last_line(part / "training" / "log.jsonl")
        share = None if line is None else share_done(line, item)
        if line is None or share is None:
            return
        first.append(share)  # a run that goes on has a share from the start, which took no time of ours
        told = f"{item.stage}: {100 * share:.0f} % done"
        if "loss" in line:
            told += f", loss {float(line['loss']):.3f}"
        gained = share - first[0]
        if gained > 0:
            told += f", {minutes((time.monotonic() - start) * (1 - share) / gained)} left"
        progress(told)

    with beside(look, EVERY, f"watcher of {item.stage}"):
        yield


@contextmanager
def arriving(item: Item, shelves: Collection[Path], progress: Callable[[str], None]) -> Iterator[None]:
    """Tell how much of the sources has come while they are pulled; what lay here before is not counted."""
    before = held(shelves)

    def look() -> None:
        come = held(shelves) - before
        if come > 0:
            progress(f"{item.stage}: {size_told(come)} of its sources pulled")

    with beside(look, EVERY, f"watcher of {item.stage}'s sources"):
        yield


def held(folders: Collection[Path]) -> int:
    """Bytes in these folders, each file counted once; files may come and go meanwhile."""
    total = 0
    for root, _, names in (one for folder in folders for one in os.walk(folder)):
        for path in (Path(root, name) for name in names):
            with suppress(FileNotFoundError):
                total += 0 if path.is_symlink() else path.stat().st_size
    return total


def size_told(size: float) -> str:
    """An amount of data as people say it.

    >>> size_told(512), size_told(21_300), size_told(145_000_000_000)
    ('512 bytes', '21.3 kB', '145.0 GB')
    """
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def last_line(log: Path) -> dict[str, Any] | None:
    """The newest whole line of a log, or None when there is none yet."""
    try:
        lines = log.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    for line in reversed(lines[-2:]):  # the last one may be half written
        try:
            told: dict[str, Any] = json.loads(line)
        except ValueError:
            continue
        return told
    return None


def share_done(line: dict[str, Any], item: Item) -> float | None:
    """The part of the training that lies behind, by its steps or its epochs."""
    if not isinstance(item.settings, Training):
        return None
    if item.settings.max_steps and "step" in line:
        return min(1.0, float(line["step"]) / item.settings.max_steps)
    if item.settings.epochs and "epoch" in line:
        return min(1.0, float(line["epoch"]) / item.settings.epochs)
    return None


def minutes(seconds: float) -> str:
    """A time as people say it.

    >>> minutes(40), minutes(600), minutes(9000)
    ('40 s', '10 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
