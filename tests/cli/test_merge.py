"""`medllm merge` from the command line: what it prints, what it refuses, and that it goes on."""

import subprocess
import sys

import pytest

from tests import tiny
from tests.refusals import assert_refused


def medllm(*words):
    command = [sys.executable, "-m", "medllm.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)


@pytest.mark.slow
def test_a_merge_prints_its_certificate_and_refuses_a_folder_that_is_there(tmp_path):
    base = tiny.make_base(tmp_path / "base")
    adapters = [tiny.make_adapter(tmp_path / "a", base), tiny.make_adapter(tmp_path / "b", base, seed=1)]
    (adapters[1] / "base.json").unlink()  # as one that was made elsewhere
    done = medllm("merge", base, *adapters, "--out", tmp_path / "out", "--parity-questions", 2, "--dtype", "float32")
    assert done.returncode == 0, done.stderr
    warnings = [line for line in done.stderr.splitlines() if "without a fingerprint" in line]
    assert len(warnings) == 1 and warnings[0].startswith(f"medllm: {adapters[1]}: names base as its base,")
    assert "top1 agreement (merged against adapter): 1.0" in done.stdout
    assert (tmp_path / "out" / "certificate.json").is_file() and not (tmp_path / "out" / "together").exists()
    again = medllm("merge", base, adapters[0], "--out", tmp_path / "out")
    assert again.returncode == 1
    assert_refused(again.stderr, "command.out-exists", tmp_path / "out")
    wrong = medllm("merge", base, base, "--out", tmp_path / "other", "--parity-questions", 0)
    assert wrong.returncode == 1
    assert_refused(wrong.stderr, "weights.not-an-adapter", base)
