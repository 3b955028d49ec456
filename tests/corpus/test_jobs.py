"""A corpus spread over Jobs of the embedded Hub, sent by the real client, is the same bytes as one made here."""

import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from medllm.corpus.jobs import jobs
from medllm.errors import DataError
from medllm.localhub import serve
from medllm.recipe.data import Corpus
from medllm.stages.corpus import make

STORE = "hf://buckets/clinic/work/corpora"
# In a process of its own, because the Hub's client reads its address when it is imported.
SCRIPT = """
import json, sys
from pathlib import Path
from medllm.corpus import sources
from medllm.recipe.data import Corpus
from medllm.stages.corpus import make

sources.PIECE = 1000
folder, out = Path(sys.argv[1]), Path(sys.argv[2])
if __name__ == "__main__":
    told = {"./texts": folder / "texts", "./past": folder / "past", "exam": folder / "exam"}
    make(Corpus.model_validate(json.loads(sys.argv[3])), told, out)
"""
QUESTION = {"question_id": "1", "text": "誤っている語はどれか。", "choices": ["甲の語", "乙の語"], "answer": "a"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    organs = ("肝臓", "腎臓", "肺", "脾臓", "骨髄")
    texts = [
        {
            "text": f"{organs[n % 5]}の働きを{n // 2 * 7}回にわたり調べた。"
            + "所見は前の回と変わらない。" * (n % 3)
            + "。" * 9
        }
        for n in range(90)
    ]
    past = [{**QUESTION, "question_id": str(n), "explanation": f"{n}年の語法による。" * 9} for n in range(4)]
    for name, rows in (("texts", texts), ("past", past), ("exam", [QUESTION])):
        (tmp_path / name).mkdir()
        written = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (tmp_path / name / "rows.jsonl").write_text(written, "utf-8")
    (tmp_path / "make.py").write_text(SCRIPT, "utf-8")
    return tmp_path


def told(executor: object) -> dict[str, object]:
    stated = {"licence": "cc0", "published": "2015-01-01"}
    past = {"source": "./past", "exam": "own", "exam_date": "2014-01-01", **stated}
    data = [{"source": "./texts", **stated}, past]
    return {"data": data, "held_out": ["exam"], "cutoff": "2017-12-31", "workers": 2, "executor": executor}


def files(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def run(folder: Path, out: str, executor: object, environment: dict[str, str]) -> None:
    command = [sys.executable, str(folder / "make.py"), str(folder), str(folder / out), json.dumps(told(executor))]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_many_jobs_give_the_bytes_that_this_machine_gives(folder):
    run(folder, "here", "local", {})
    options = {"store": STORE, "tasks_per_job": 10, "poll_interval": 1, "flavor": "cpu-basic"}
    with serve(folder / "hub", user="clinic", allow_jobs=True) as hub:
        there = {"HF_ENDPOINT": hub.url, "HF_TOKEN": hub.token, "HF_HOME": str(folder / "home")}
        run(folder, "there", {"kind": "jobs", "options": options}, there)
        logs = [path.read_text("utf-8") for path in (folder / "hub" / "jobs").rglob("*") if path.is_file()]
    assert files(folder / "there") == files(folder / "here")
    assert len(files(folder / "here")) > 30, "more tasks than one Job takes"
    lines = [line for log in logs for line in log.splitlines() if "task " in line and " of read by " in line]
    assert len(lines) > 10, "more than one Job reads"
    assert not [line for line in lines if str(Path(__file__).parents[2]) in line], "a Job ran code that was not sent"
    assert not (folder / "there.part").exists()


def test_a_store_is_needed_and_one_that_jobs_cannot_reach_is_refused(folder):
    with pytest.raises(DataError, match="jobs needs `store` under `options`, as hf://buckets/ORG/NAME"):
        jobs(2)
    sources = {"./texts": folder / "texts", "./past": folder / "past", "exam": folder / "exam"}
    for store, said in ((str(folder / "disk"), "requires a remote logging_dir"), ("nonsense://x", "nonsense")):
        executor = {"kind": "jobs", "options": {"store": store}}
        with pytest.raises(DataError, match=f"corpus.executor: jobs: .*{said}"):
            make(Corpus.model_validate({**told(executor), "cutoff": date(2017, 12, 31)}), sources, folder / "out")
