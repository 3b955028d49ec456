"""Progress of a stage: how much of its sources is pulled, then the share of its training done, loss and time left."""

import json
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from medllm.pipeline.plan import StagePlan
from medllm.recipe.estimate import format_duration
from medllm.recipe.training import Training

POLL_SECONDS = 2.0


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


@contextmanager
def report_training(item: StagePlan, part: Path, progress: Callable[[str], None]) -> Iterator[None]:
    """Report how much of a training is done while it runs; stages without a log report nothing."""
    start = time.monotonic()
    first: list[float] = []

    def report() -> None:
        line = last_line(part / "training" / "log.jsonl")
        share = None if line is None else share_done(line, item)
        if line is None or share is None:
            return
        first.append(share)  # a resumed run starts with a share that took no time of this process
        text = f"{item.stage}: {100 * share:.0f} % done"
        if "loss" in line:
            text += f", loss {float(line['loss']):.3f}"
        gained = share - first[0]
        if gained > 0:
            text += f", {format_duration((time.monotonic() - start) * (1 - share) / gained)} left"
        progress(text)

    with poll_in_background(report, POLL_SECONDS, f"progress of {item.stage}"):
        yield


@contextmanager
def report_pull(item: StagePlan, caches: Collection[Path], progress: Callable[[str], None]) -> Iterator[None]:
    """Report how much of the sources has arrived while they are pulled, without what was here before."""
    before = count_bytes(caches)

    def report() -> None:
        arrived = count_bytes(caches) - before
        if arrived > 0:
            progress(f"{item.stage}: {format_bytes(arrived)} of its sources pulled")

    with poll_in_background(report, POLL_SECONDS, f"pull for {item.stage}"):
        yield


def count_bytes(folders: Collection[Path]) -> int:
    """Count the bytes in these folders, without links; files may come and go meanwhile."""
    total = 0
    for root, _, names in (one for folder in folders for one in os.walk(folder)):
        for path in (Path(root, name) for name in names):
            with suppress(FileNotFoundError):
                total += 0 if path.is_symlink() else path.stat().st_size
    return total


def format_bytes(size: float) -> str:
    """Format an amount of data with its unit.

    >>> format_bytes(512), format_bytes(21_300), format_bytes(145_000_000_000)
    ('512 bytes', '21.3 kB', '145.0 GB')
    """
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def last_line(log: Path) -> dict[str, Any] | None:
    """Read the newest complete line of a JSONL log; None when there is none yet."""
    try:
        lines = log.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    for line in reversed(lines[-2:]):  # the last one may be half written
        try:
            entry: dict[str, Any] = json.loads(line)
        except ValueError:
            continue
        return entry
    return None


def share_done(line: dict[str, Any], item: StagePlan) -> float | None:
    """Return the share of the training that is done, by its steps or its epochs."""
    if not isinstance(item.settings, Training):
        return None
    if item.settings.max_steps and "step" in line:
        return min(1.0, float(line["step"]) / item.settings.max_steps)
    if item.settings.num_train_epochs and "epoch" in line:
        return min(1.0, float(line["epoch"]) / item.settings.num_train_epochs)
    return None
