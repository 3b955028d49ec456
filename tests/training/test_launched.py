"""Processes that a training starts end with it, also when it is killed: nobody goes on writing beside the next run."""

import subprocess
import sys

CHILD = """
import time
from medllm.training.launched import _end_with_the_run
_end_with_the_run()
print("at work", flush=True)
time.sleep(600)
"""
RUN = """
import os, sys
from medllm.training.launcher import run
sys.exit(run([sys.executable, "-c", sys.argv[1]], {**os.environ, "MEDLLM_LAUNCHED": "."}))
"""


def test_a_killed_run_leaves_no_process_at_work():
    run = subprocess.Popen([sys.executable, "-c", RUN, CHILD], stdout=subprocess.PIPE, text=True)
    assert run.stdout.readline() == "at work\n"
    run.kill()
    run.wait()
    with run.stdout:
        assert run.stdout.read() == ""  # returns when the last process that could still write there has ended


def test_a_run_that_lives_lets_them_work_and_takes_their_code():
    done = subprocess.run([sys.executable, "-c", RUN, "raise SystemExit(7)"], check=False)
    assert done.returncode == 7
