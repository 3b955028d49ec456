"""Push half-made work every few minutes, beside the stage that makes it: a Job's disk dies with the Job."""

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from medllm.errors import HubError
from medllm.hub import Hub
from medllm.hub.branch import branch_of, keep
from medllm.pipeline.plan import Item


@contextmanager
def kept(item: Item, hub: Hub, part: Path, every: float | None, say: Callable[[str], None]) -> Iterator[None]:
    """Keep `part` on the Hub every so many seconds while the stage is at work; None keeps nothing."""
    if every is None:
        yield
        return
    done = threading.Event()

    def work() -> None:
        last: dict[str, tuple[int, int]] = {}
        while not done.wait(every):
            now = _state(part)
            if now and now != last:
                last = now
                _keep_once(item, hub, part, say)

    keeper = threading.Thread(target=work, name=f"keeper of {item.stage}", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        done.set()
        keeper.join()


def _keep_once(item: Item, hub: Hub, part: Path, say: Callable[[str], None]) -> None:
    still = part.with_name(part.name + ".still")  # a copy, so that the files pushed together belong together
    try:
        shutil.rmtree(still, ignore_errors=True)
        shutil.copytree(part, still)
        keep(hub, still, item.repo_id, item.kind, branch_of(item.digest))
        say(f"{item.stage}: the work so far is kept on the Hub")
    except (HubError, OSError) as fault:  # the stage itself goes on; the next round tries again
        say(f"{item.stage}: the work so far could not be kept ({type(fault).__name__}: {fault})")
    finally:
        shutil.rmtree(still, ignore_errors=True)


def _state(folder: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for path in folder.rglob("*"):
        try:
            told = path.stat()
        except FileNotFoundError:
            continue
        if path.is_file():
            found[path.relative_to(folder).as_posix()] = (told.st_size, told.st_mtime_ns)
    return found
