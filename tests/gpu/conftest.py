"""How many GPUs this machine has: a test of one sees one, and those of several start processes that see as many."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EVERYTHING = os.environ.get("CUDA_VISIBLE_DEVICES")
COUNT = "import torch; print(torch.cuda.device_count())"


def gpus() -> int:
    """The GPUs of this machine, counted by another process: counting here would fix what is seen here."""
    if not any(Path(path).exists() for path in ("/dev/nvidia0", "/dev/kfd", "/dev/dxg")):
        return 0
    printed = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True, check=False).stdout.strip()
    return int(printed) if printed.isdecimal() else 0


def visible(count: int, everything: str | None = EVERYTHING) -> str:
    """The value of CUDA_VISIBLE_DEVICES for the first `count` GPUs of those that were given to us."""
    given = everything.split(",") if everything else [str(number) for number in range(count)]
    return ",".join(given[:count])


SEEN = gpus()
if SEEN > 1:  # or transformers' trainer would spread one process over all of them
    os.environ["CUDA_VISIBLE_DEVICES"] = visible(1)


@pytest.fixture
def needs(request: pytest.FixtureRequest) -> int:
    """So many GPUs, or the test is left out."""
    count = int(request.param)
    if count > SEEN:
        pytest.skip(f"needs {count} GPUs, there are {SEEN}")
    return count
