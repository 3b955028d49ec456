"""The report of the first hour on GPUs: nothing is written without one, and what is written names nobody."""

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tools import gpu_report

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "gpu-first-hour.md").read_text(encoding="utf-8")


def test_without_a_gpu_it_says_so_writes_nothing_and_fails(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu_report, "gpus", lambda: ([], None))
    monkeypatch.setattr(sys, "argv", ["gpu_report.py", "--out", str(tmp_path / "report.json")])
    assert gpu_report.main() == 1
    assert "no GPU here" in capsys.readouterr().err
    assert not (tmp_path / "report.json").exists()


@pytest.mark.parametrize("count", [1, 2, 4])
def test_each_step_is_run_where_there_are_gpus_enough_and_its_end_is_kept(tmp_path, monkeypatch, count):
    monkeypatch.setattr(gpu_report, "gpus", lambda: ([("NVIDIA A100", 85_899_345_920)] * count, "12.8"))
    steps = [
        gpu_report.Step("says", ("-c", "print('0.91 s an update')"), 30),
        gpu_report.Step("fails", ("-c", "raise SystemExit(3)"), 30),
        gpu_report.Step("hangs", ("-c", "import time; print('began', flush=True); time.sleep(60)"), 1),
        gpu_report.Step("two", ("-c", "print('both')"), 30, gpus=2),
    ]
    monkeypatch.setattr(gpu_report, "steps", lambda: steps)
    monkeypatch.setattr(sys, "argv", ["gpu_report.py", "--out", str(tmp_path / "report.json")])
    assert gpu_report.main() == 1
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["machine"]["gpus"] == [{"name": "NVIDIA A100", "memory_gb": 85.9}] * count
    assert [one["code"] for one in report["steps"]] == [0, 3, 124, 0 if count > 1 else None]
    assert report["steps"][0]["told"] == ["0.91 s an update"]
    assert report["steps"][2]["told"] == ["began"]


def test_the_report_names_no_path_host_or_token():
    secret = "hf_" + "a" * 34
    text = gpu_report.cleaned(f"{ROOT}/x {Path.home()}/y {platform.node()}z {secret}\n 3%| 1/9 [2.0it/s]\rdone")
    assert str(ROOT) not in text
    assert str(Path.home()) not in text
    assert secret not in text
    assert text.endswith("done")


def test_every_step_names_files_that_exist_and_the_page_tells_of_each():
    for step in gpu_report.steps():
        for word in step.words:
            if word.endswith(".py"):
                assert (ROOT / word).is_file(), word
                assert word in PAGE
    listed = subprocess.run(
        [sys.executable, "tools/gpu_report.py", "--list"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert len(listed.stdout.splitlines()) == len(gpu_report.steps())
