"""The one limit of tests with several processes: a minute in which none of them computes is a hang, and ends them."""

import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

STILL = 60.0
"""Seconds without work after which processes count as hung, however busy the machine and however long the test."""
WORK = 0.5
"""Processor time that all of them together must spend in that time; what only waits spends some milliseconds."""
LONGEST = 600.0
"""Seconds after which also processes that compute are ended: on an idle machine the longest test takes one minute."""
LOOK = 1.0


class Watch(threading.Thread):
    """Ends the processes that one starts from now on when they hang; `fault` then says why."""

    def __init__(self, root: int, still: float = STILL, longest: float = LONGEST) -> None:
        super().__init__(name="end what hangs", daemon=True)
        self.root, self.still, self.longest = root, still, longest
        self.fault: str | None = None
        self._before = set(below(root))
        self._over = threading.Event()

    def run(self) -> None:
        """Look at them until the test is over."""
        begun = moved = time.monotonic()
        known: set[int] = set()
        spent = 0.0
        while not self._over.wait(LOOK):
            now = time.monotonic()
            theirs = set(below(self.root)) - self._before
            total = sum(map(processor_time, {self.root, *theirs}))
            if theirs != known or total - spent > WORK:
                known, spent, moved = theirs, total, now
            if theirs and now - moved > self.still:
                self._end(theirs, f"no process did anything for {self.still:.0f} seconds")
            elif theirs and now - begun > self.longest:
                self._end(theirs, f"not done after {self.longest:.0f} seconds")

    def stop(self) -> None:
        """Look no more."""
        self._over.set()
        self.join()

    def _end(self, theirs: set[int], fault: str) -> None:
        self.fault = self.fault or fault
        for process in theirs:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


def below(process: int) -> list[int]:
    """The processes that one has started, and theirs; those that have ended are left out."""
    found = []
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            found += [int(one) for one in children.read_text("utf-8").split()]
    return [more for one in found if _stat(one)[:1] not in ([], ["Z"]) for more in (one, *below(one))]


def processor_time(process: int) -> float:
    """Seconds of processor time that it has spent."""
    status = _stat(process)
    return sum(map(int, status[11:13])) / os.sysconf("SC_CLK_TCK")


def _stat(process: int) -> list[str]:
    """The fields of /proc after the name: state first, processor time of the program and of the system at 11 and 12."""
    try:
        return Path(f"/proc/{process}/stat").read_text("utf-8").rpartition(")")[2].split()
    except OSError:
        return []
