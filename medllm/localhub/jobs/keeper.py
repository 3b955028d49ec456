"""Runs one command and ends its whole process group when the command ends, or when the hub closes the pipe or dies.

The keeper is a separate script, so that even a killed hub leaves no process behind.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

PATIENCE = 5.0
"""Seconds between asking the group to stop (SIGTERM) and killing it (SIGKILL)."""


def _stop(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)
        ends = time.monotonic() + PATIENCE
        while time.monotonic() < ends:
            time.sleep(0.05)
            os.killpg(group, 0)
        os.killpg(group, signal.SIGKILL)


def _watch(group: int) -> None:
    os.read(0, 1)  # returns when the hub closes the pipe, on purpose or by dying
    _stop(group)


def keep(command: list[str]) -> int:
    """Run the command in a new process group and return its exit code."""
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    except OSError as fault:
        print(f"cannot run {command[0]}: {fault.strerror}", flush=True)  # noqa: T201  this is the job's log
        return 127
    threading.Thread(target=_watch, args=(child.pid,), daemon=True).start()
    code = child.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(keep(sys.argv[1:]))
