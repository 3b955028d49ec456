"""A run that is killed takes its workers with it, and the next one begins when the last of them has ended."""

import fcntl
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from medllm.corpus.workers import begin, in_processes

MAKE = """
import sys
from functools import partial
from pathlib import Path
from tests.corpus.test_workers import pooled, wait
from medllm.corpus.workers import in_processes

if __name__ == "__main__":
    folder = Path(sys.argv[2])
    if sys.argv[1] == "audit":
        pooled(partial(wait, folder))
    else:
        in_processes(partial(wait, folder), range(3), int(sys.argv[1]), folder / "marks")
"""


def wait(folder: Path, task: int) -> None:
    """A task that never ends by itself."""
    (folder / f"{task}.begun").touch()
    time.sleep(600)


def write(folder: Path, task: int) -> None:
    (folder / f"{task}.written").write_text(str(os.getpid()))


def pooled(do: partial) -> None:
    """The pool of an audit."""
    with ProcessPoolExecutor(2, multiprocessing.get_context("forkserver"), begin) as pool:
        list(pool.map(do, range(2)))


def members(session: int) -> list[str]:
    """What still runs in a session, by the name and state of each process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            head, _, rest = path.read_text().rpartition(")")
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, _, _, theirs = rest.split()[:4]
        if int(theirs) == session and state not in "ZX":
            found.append(f"{head}) {state}")
    return found


@pytest.mark.parametrize(("workers", "at_work"), [("1", 1), ("3", 3), ("audit", 2)])
def test_a_run_that_is_killed_leaves_no_process(tmp_path, workers, at_work):
    (tmp_path / "make.py").write_text(MAKE)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    run = subprocess.Popen(
        [sys.executable, tmp_path / "make.py", workers, tmp_path], env=environment, start_new_session=True
    )
    while len(list(tmp_path.glob("*.begun"))) < at_work:
        assert run.poll() is None
        time.sleep(0.05)
    assert len(members(run.pid)) >= at_work
    run.kill()
    run.wait()
    end = time.monotonic() + 600
    while left := members(run.pid):
        assert time.monotonic() < end, left
        time.sleep(0.05)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_next_run_begins_when_the_last_worker_of_the_killed_one_has_ended(tmp_path, workers):
    with (tmp_path / "at-work").open("a") as straggler:
        fcntl.flock(straggler, fcntl.LOCK_SH)
        run = threading.Thread(target=in_processes, args=(partial(write, tmp_path), [0, 1], workers, tmp_path))
        run.start()
        run.join(1)
        assert run.is_alive()
        assert not list(tmp_path.glob("*.written"))
    run.join()
    assert len(list(tmp_path.glob("*.written"))) == 2


def test_with_one_worker_no_other_process_is_made(tmp_path):
    in_processes(partial(write, tmp_path), [0, 1], 1, tmp_path)
    assert {path.read_text() for path in tmp_path.glob("*.written")} == {str(os.getpid())}


def test_what_a_worker_raises_is_raised_by_the_run(tmp_path):
    with pytest.raises(FileNotFoundError):
        in_processes(partial(write, tmp_path / "nowhere"), [0, 1], 2, tmp_path)


def test_only_a_worker_can_end_with_its_run():
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(RuntimeError, match="only a worker process"):
            begin()
    finally:
        signal.signal(signal.SIGINT, before)
