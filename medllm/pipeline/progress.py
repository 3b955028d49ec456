"""Progress of a stage: how much of its sources is pulled, how much of its work is done, how fast, and what is left."""

import json
import os
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from medllm.pipeline.plan import StagePlan
from medllm.recipe.rounds import parts_of
from medllm.recipe.training import Training
from medllm.wording import format_duration
from medllm.work_progress import WorkProgress, poll_in_background, progress_in, read_progress

POLL_SECONDS = 2.0
RECENT = 60.0
"""Seconds whose tokens make a rate."""
ENOUGH = 0.005
"""The share of the tokens that may be written at most, after which the longest time left is stated: before, prompts
are read, and the first tokens would foretell hundreds of hours."""


@contextmanager
def report_work(item: StagePlan, place: Path, progress: Callable[[str], None]) -> Iterator[None]:
    """Report how far the stage that works in `place` is: what it reports itself, else the log of its training."""
    pace = WorkPace()

    def report() -> None:
        work = read_progress(place / "progress.json")
        name, log = _training_at_work(place)
        line = last_line(log)
        share = None if line is None else share_done(line, item)
        if share is not None and line is not None:
            loss = f", loss {float(line['loss']):.3f}" if "loss" in line else ""
            progress(f"{item.stage}: {name}{100 * share:.0f} % done{loss}{pace.left(f'training {name}', share)}")
        elif work is not None:
            progress(f"{item.stage}: {describe_work(work, pace)}")

    with progress_in(place / "progress.json"), poll_in_background(report, POLL_SECONDS, f"progress of {item.stage}"):
        yield


def _training_at_work(place: Path) -> tuple[str, Path]:
    """Find the log of the training that is at work, after its name where it is one of several: the round's."""
    within = next(place.glob("making.part/steps/*/rpo.part"), None)
    name = f"{within.parent.name}, training: " if within else ""
    return name, (within or place / "making.part") / "training" / "log.jsonl"


class WorkPace:
    """How fast the parts of a stage go; a resumed run starts with a share that took no time of this process."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[float, float]] = {}
        self._recent: dict[str, deque[tuple[float, float]]] = {}

    def gained(self, part: str, amount: float) -> tuple[float, float]:
        """Return how much was gained since this part was first seen, and in how many seconds."""
        at, first = self._first.setdefault(part, (time.monotonic(), amount))
        return amount - first, time.monotonic() - at

    def rate(self, part: str, amount: float) -> float:
        """Return how much of a part was gained in a second of the last minute; 0 when it is first seen."""
        seen, now = self._recent.setdefault(part, deque()), time.monotonic()
        seen.append((now, amount))
        while len(seen) > 2 and now - seen[1][0] >= RECENT:
            seen.popleft()
        return (amount - seen[0][1]) / (now - seen[0][0]) if now > seen[0][0] else 0.0

    def left(self, part: str, share: float, after: float = 0.0) -> str:
        """Describe the time left of a part from its share done; empty before more than the share `after` was gained."""
        gained, seconds = self.gained(part, share)
        return f", {format_duration(seconds * (1 - share) / gained)} left" if gained > after else ""


def describe_work(work: WorkProgress, pace: WorkPace) -> str:
    """Describe what is done of how much, the tokens a second, and the time left.

    Where replies are written, the time left is what all the tokens that may still be written would take.
    """
    amount = f"{work.done:,} of {work.total:,} {work.unit}"
    if work.unit == "bytes":
        amount = f"{format_bytes(work.done)} of {format_bytes(work.total)}"
    parts = [f"{work.what}: " if work.what else "", amount]
    if work.also:
        parts.append(f", {work.also}")
    if work.done >= work.total:  # what follows it is not counted
        return "".join(parts)
    reading = pace.rate(f"prompts of {work.what}", work.tokens_read)
    if work.tokens_read:
        parts.append(f", {work.tokens_read:,} prompt tokens read" + _a_second(reading))
    rate = pace.rate(f"tokens of {work.what}", work.tokens)
    if work.tokens:
        parts.append(f", {work.tokens:,} tokens" + _a_second(rate))
    if work.most_tokens:  # replies may end early, and a plain one is short
        left = pace.left(f"{work.what} {work.unit}", min(1.0, work.tokens_settled / work.most_tokens), ENOUGH)
        return "".join([*parts, left.replace(", ", ", at most ")])
    return "".join([*parts, pace.left(f"{work.what} {work.unit}", work.done / work.total)])


def _a_second(rate: float) -> str:
    """Describe a rate of tokens; empty where none passed."""
    return f", {rate:,.0f} tokens/s" if rate >= 10 else f", {rate:.1f} tokens/s" if rate >= 0.05 else ""


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


@contextmanager
def report_push(what: str, place: Path, progress: Callable[[str], None]) -> Iterator[None]:
    """Report a push that takes long: how much of it has been sent, the time left, and the time so far.

    `what` names the push; the folder `place` holds the file with its progress meanwhile.
    """
    start, pace = time.monotonic(), WorkPace()

    def report() -> None:
        work = read_progress(place / "progress.json")
        sent = f", {describe_work(work, pace)}" if work else ""
        progress(f"{what}{sent}, {format_duration(time.monotonic() - start)} so far")

    with progress_in(place / "progress.json"), poll_in_background(report, POLL_SECONDS, f"progress of {what}"):
        yield


def count_bytes(folders: Collection[Path]) -> int:
    """Count the bytes in these folders, without links; files may come and go meanwhile."""
    total = 0
    for root, _, names in (visited for folder in folders for visited in os.walk(folder)):
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
    training = next((part for part in parts_of(item.settings) if isinstance(part, Training)), None)
    if training is None:
        return None
    if training.max_steps and "step" in line:
        return min(1.0, float(line["step"]) / training.max_steps)
    if training.num_train_epochs and "epoch" in line:
        return min(1.0, float(line["epoch"]) / training.num_train_epochs)
    return None
