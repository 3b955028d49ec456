"""A parent that is killed leaves no child and no grandchild, whichever way its children were started."""

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

from medllm.processes import begin_worker, run_in_workers, start_guarded

MAKE = """
import sys
from functools import partial
from pathlib import Path
from medllm.processes import run_in_workers
from tests.test_processes import pooled, wait

if __name__ == "__main__":
    folder = Path(sys.argv[2])
    if sys.argv[1] == "audit":
        pooled(partial(wait, folder))
    else:
        run_in_workers(partial(wait, folder), range(3), int(sys.argv[1]), folder / "marks")
"""

HERE = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}


def wait(folder: Path, task: int) -> None:
    """A task that never ends by itself."""
    (folder / f"{task}.begun").touch()
    time.sleep(600)


def write(folder: Path, task: int) -> None:
    (folder / f"{task}.written").write_text(str(os.getpid()))


def pooled(do: partial) -> None:
    """The pool of an audit."""
    with ProcessPoolExecutor(2, multiprocessing.get_context("forkserver"), begin_worker) as pool:
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
    run = subprocess.Popen([sys.executable, tmp_path / "make.py", workers, tmp_path], env=HERE, start_new_session=True)
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
        run = threading.Thread(target=run_in_workers, args=(partial(write, tmp_path), [0, 1], workers, tmp_path))
        run.start()
        run.join(1)
        assert run.is_alive()
        assert not list(tmp_path.glob("*.written"))
    run.join()
    assert len(list(tmp_path.glob("*.written"))) == 2


def test_with_one_worker_no_other_process_is_made(tmp_path):
    run_in_workers(partial(write, tmp_path), [0, 1], 1, tmp_path)
    assert {path.read_text() for path in tmp_path.glob("*.written")} == {str(os.getpid())}


def test_what_a_worker_raises_is_raised_by_the_run(tmp_path):
    with pytest.raises(FileNotFoundError):
        run_in_workers(partial(write, tmp_path / "nowhere"), [0, 1], 2, tmp_path)


def test_only_a_worker_can_end_with_its_run():
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(RuntimeError, match="only a worker process"):
            begin_worker()
    finally:
        signal.signal(signal.SIGINT, before)


SHELL = """
import sys
from medllm.processes import start_guarded
start_guarded(["bash", "-c", sys.argv[1]]).wait()
"""


def numbers(file: Path, count: int) -> list[int]:
    """The process numbers that a script writes, when all are there."""
    while len(written := file.read_text().split() if file.exists() else []) < count:
        time.sleep(0.02)
    return [int(number) for number in written]


def alive(number: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until_none_is_alive(processes: list[int]) -> None:
    end = time.monotonic() + 60
    while left := [number for number in processes if alive(number)]:
        assert time.monotonic() < end, left
        time.sleep(0.05)


@pytest.mark.parametrize("trap", ["", "trap '' TERM; "], ids=["ends when asked", "ignores SIGTERM"])
def test_a_killed_parent_leaves_no_guarded_program_and_no_process_that_it_started(tmp_path, trap):
    script = f"{trap}sleep 600 & echo $! $$ > {tmp_path}/part; mv {tmp_path}/part {tmp_path}/numbers; wait; wait"
    parent = subprocess.Popen([sys.executable, "-c", SHELL, script], env=HERE)
    processes = numbers(tmp_path / "numbers", 2)
    assert all(alive(number) for number in processes)
    parent.kill()
    parent.wait()
    wait_until_none_is_alive(processes)


def test_a_guarded_program_that_ends_takes_what_it_started_with_it_and_gives_its_code(tmp_path):
    guard = start_guarded(["bash", "-c", f"sleep 600 & echo $! > {tmp_path}/numbers; exit 7"])
    with guard:
        assert guard.wait() == 7
    wait_until_none_is_alive(numbers(tmp_path / "numbers", 1))


def test_a_guarded_program_ends_when_its_pipe_is_closed(tmp_path):
    with start_guarded(["bash", "-c", f"echo $$ > {tmp_path}/numbers; sleep 600"]) as guard:
        processes = numbers(tmp_path / "numbers", 1)
        guard.stdin.close()
        assert guard.wait() == 128 + signal.SIGTERM
    wait_until_none_is_alive(processes)


def test_a_guarded_program_that_is_not_there_ends_with_127_as_in_a_shell():
    with start_guarded(["/no/such/program"], stdout=subprocess.PIPE) as guard:
        assert guard.stdout.read() == b"cannot run /no/such/program: No such file or directory\n"
        assert guard.wait() == 127


CHILD = """
import subprocess, sys
from medllm.processes import exit_with_stdin
if sys.argv[1] == "child":
    subprocess.Popen([sys.executable, "-c", sys.argv[2], "grandchild", ""])
exit_with_stdin()
print("at work", flush=True)
import time
time.sleep(600)
"""
PARENT = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", sys.argv[1], "child", sys.argv[1]], stdin=subprocess.PIPE)
time.sleep(600)
"""


def test_a_killed_parent_leaves_no_child_that_waits_for_the_end_of_stdin_and_no_grandchild():
    parent = subprocess.Popen([sys.executable, "-c", PARENT, CHILD], stdout=subprocess.PIPE, text=True, env=HERE)
    assert [parent.stdout.readline(), parent.stdout.readline()] == ["at work\n"] * 2
    parent.kill()
    parent.wait()
    with parent.stdout:
        assert parent.stdout.read() == ""  # returns when the last process that could still write there has ended
