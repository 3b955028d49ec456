"""Push half-made work every few minutes, beside the stage that makes it: a Job's disk dies with the Job."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from medllm.hub import Hub
from medllm.hub.push import branch_of, push_wip
from medllm.pipeline.plan import StagePlan
from medllm.work_progress import poll_in_background

REMADE = "cache"
"""The folder of half-made work that any machine makes again from the sources: nothing in it is worth sending."""


@contextmanager
def sync_wip(item: StagePlan, hub: Hub, part: Path, every: float | None, say: Callable[[str], None]) -> Iterator[None]:
    """Keep `part` on the Hub every so many seconds while the stage is at work; None keeps nothing."""
    if every is None:
        yield
        return
    last: dict[str, tuple[int, int]] = {}

    def look() -> None:
        nonlocal last
        try:
            now = _state(part)
            if now and now != last:
                _sync_once(item, hub, part)
                last = now
                say(f"{item.stage}: the work so far is kept on the Hub")
        except Exception as fault:  # whatever it is, the stage goes on and the next round tries again
            say(f"{item.stage}: the work so far could not be kept ({type(fault).__name__}: {fault})")

    with poll_in_background(look, every, f"keeper of {item.stage}"):
        yield


def _sync_once(item: StagePlan, hub: Hub, part: Path) -> None:
    still = part.with_name(part.name + ".still")  # a copy, so that the files pushed together belong together
    try:
        shutil.rmtree(still, ignore_errors=True)
        _copy(part, still)
        push_wip(hub, still, item.repo_id, item.kind, branch_of(item.digest))
    finally:
        shutil.rmtree(still, ignore_errors=True)


def _copy(part: Path, still: Path) -> None:
    """Copy checkpoints first: a log ahead of its checkpoint is cut when work goes on, one behind has a gap."""
    still.mkdir(parents=True)
    for path in sorted(part.iterdir(), key=lambda path: path.name != "checkpoints"):
        if path.is_dir() and path.name != REMADE:
            shutil.copytree(path, still / path.name)
        elif path.is_file():
            shutil.copy2(path, still)


def _state(folder: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for root, folders, names in os.walk(folder):  # unlike rglob it tolerates folders that are deleted meanwhile
        if Path(root) == folder and REMADE in folders:
            folders.remove(REMADE)
        for path in (Path(root, name) for name in names):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            found[path.relative_to(folder).as_posix()] = (status.st_size, status.st_mtime_ns)
    return found
