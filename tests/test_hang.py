"""The limit of tests with several processes finds those that wait for each other, and leaves those that compute."""

import subprocess
import sys
import time

import pytest

from tests.hang import Watch

STARTED = "import subprocess, sys, time; time.sleep(1); subprocess.run([sys.executable, '-c', sys.argv[1]])"
STUCK = "import time; time.sleep(90)"
BUSY = "import time\nuntil = time.monotonic() + 7\nwhile time.monotonic() < until: pass"


@pytest.mark.parametrize(
    ("code", "longest", "fault"),
    [
        (STUCK, 600.0, "no process did anything for 4 seconds"),
        (BUSY, 600.0, None),
        (BUSY, 4.0, "not done after 4 seconds"),
    ],
)
def test_processes_that_only_wait_are_ended_and_those_that_compute_are_not(code, longest, fault):
    with subprocess.Popen([sys.executable, "-c", STARTED, code]) as run:
        watch = Watch(run.pid, still=4.0, longest=longest)
        watch.start()
        began = time.monotonic()
        run.wait()
        watch.stop()
    assert watch.fault == fault
    assert time.monotonic() - began < 40
