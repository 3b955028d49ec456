"""What every test may ask for: the shared exam data, where it is present."""

import os
import tempfile
from pathlib import Path

import pytest

# Before any library reads it: what the tests download must not land in, or come from, the cache of whoever runs them.
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="medllm-tests-hf-home-")
# On a shared machine the threads of a small matrix product wait for each other far longer than they work.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real exams and texts, which are never part of this repository; absent in CI is a failure, not a skip."""
    folder = Path(os.environ.get("MEDLLM_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        reason = f"no exam data at {folder}: set MEDLLM_SHARED_DATA to a folder with igakuqa/, yakugakuqa/, ..."
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder
