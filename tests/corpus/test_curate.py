"""A curation that is killed goes on where it was and ends with the same bytes; work begun for others is thrown away."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SENTENCES = [
    "肝臓は栄養を蓄え、血液に混じった毒を分解して体の外に出しやすい形に変える働きを持つ",
    "腎臓は一日に百八十リットルほどの原尿をこしとり、その大部分を体に戻している",
    "肺では吸いこんだ空気と血液とが薄い膜をはさんで向かいあう",
    "骨は古い部分が溶かされ新しい部分が作られることを絶えず繰り返している",
    "脾臓は古くなった赤血球をこわし、鉄を取り出してまた使えるようにする",
]
SCRIPT = """
import sys
from datetime import date
from pathlib import Path
from medllm.corpus.read import sources
from medllm.recipe.data import Corpus
from medllm.stages.corpus import make

sources.PIECE = 3000
folder, out = Path(sys.argv[1]), Path(sys.argv[2])
told = {"data": ["./texts"], "held_out": ["exam"], "cutoff": date(2017, 12, 31)}
if __name__ == "__main__":
    make(Corpus.model_validate(told), {"./texts": folder / "texts", "exam": folder / "exam"}, out)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "texts").mkdir()
    (tmp_path / "exam").mkdir()
    with (tmp_path / "texts" / "rows.jsonl").open("w", encoding="utf-8") as stream:
        for number in range(120):
            text = "。".join(f"{SENTENCES[(number * k + k) % 5]}（{number * 7 + k}）" for k in range(1, 6))
            row = {"id": number, "text": text, "published": str(2000 + number % 17), "license": "cc0"}
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
    question = {
        "question_id": "1",
        "text": "次の語のうちで誤っているものはどれか。",
        "choices": ["甲の語", "乙の語"],
        "answer": "a",
    }
    (tmp_path / "exam" / "questions.jsonl").write_text(json.dumps(question, ensure_ascii=False), "utf-8")
    (tmp_path / "make.py").write_text(SCRIPT, "utf-8")
    return tmp_path


def start(folder: Path, out: Path) -> subprocess.Popen:
    command = [sys.executable, str(folder / "make.py"), str(folder), str(out)]
    return subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE)


def files(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


@pytest.mark.long
@pytest.mark.slow
def test_killed_at_many_points_the_result_is_the_same_bytes(folder):
    whole = start(folder, folder / "whole")
    assert whole.wait(600) == 0, whole.stderr.read().decode()
    whole.stderr.close()
    out, kills = folder / "killed", 0
    # Killed each time that more of the work stands than before, so that every pass is met at least once.
    for marks in (1, 3, 8, 15, 30, 33, 40):
        process = start(folder, out)
        while process.poll() is None and done(out) < marks:
            time.sleep(0.01)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.wait(60)
        process.stderr.close()
    last = start(folder, out)
    assert last.wait(600) == 0, last.stderr.read().decode()
    last.stderr.close()
    assert kills >= 4
    assert len(files(out)) > 20
    assert files(out) == files(folder / "whole")
    assert not out.with_name("killed.part").exists()


def done(out: Path) -> int:
    """Tasks that are marked as done."""
    return sum(1 for _ in out.with_name(f"{out.name}.part").glob("marks/*/completions/*"))


def test_work_begun_for_other_settings_is_thrown_away(tmp_path):
    from medllm.corpus.curate import _begin

    _begin(tmp_path / "work", "one")
    (tmp_path / "work" / "half").write_text("made")
    _begin(tmp_path / "work", "one")
    assert (tmp_path / "work" / "half").exists()
    _begin(tmp_path / "work", "two")
    assert not (tmp_path / "work" / "half").exists()
