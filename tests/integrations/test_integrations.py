"""The tasks of integrations/, asked by the harnesses themselves, and what `medllm score` reads of their files."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import medllm
from medllm.cli.main import app

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
PLACE = Path(os.environ.get("MEDLLM_HARNESSES", Path.home() / ".cache" / "medllm" / "harnesses"))
HARNESSES = {"lm_eval": "lm-eval==0.4.13", "inspect_ai": "inspect-ai==0.3.285"}


def installed(name: str) -> Path:
    """Return the Python of an environment with a harness, made once; skip where it cannot be installed."""
    made = PLACE / f"{name}-py{sys.version_info.major}.{sys.version_info.minor}"
    if not (made / "complete").is_file():
        shutil.rmtree(made, ignore_errors=True)
        made.parent.mkdir(parents=True, exist_ok=True)
        for words in (
            [sys.executable, "-m", "venv", made],
            [made / "bin" / "python", "-m", "pip", "install", "--quiet", HARNESSES[name]],
        ):
            done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=900, check=False)
            if done.returncode:
                pytest.skip(f"{HARNESSES[name]} cannot be installed here: {done.stderr.strip().splitlines()[-1:]}")
        (made / "complete").touch()
    return made / "bin" / "python"


@pytest.fixture
def igakuqa_small(tmp_path):
    """Invented questions in the layout of IgakuQA, with its three worked examples."""

    def row(name, key, text):
        choices = [f"{text}の{word}" for word in ("原因", "症状", "検査", "治療", "予後")]
        values = {"problem_id": name, "problem_text": f"{text}で正しいのはどれか。", "choices": choices}
        return {**values, "text_only": True, "answer": list(key), "points": "1"}

    folder = tmp_path / "IgakuQA"
    for place, rows in {
        "data/2018/112-A.jsonl": [row(f"112A{n}", "abcde"[n % 5], f"疾患{n}") for n in range(1, 9)],
        "prompts/prompt.jsonl": [row(f"100A{n}", "b", f"例{n}") | {"explanation": "解説文。"} for n in range(1, 4)],
    }.items():
        (folder / place).parent.mkdir(parents=True)
        (folder / place).write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in rows), "utf-8")
    return folder


@pytest.fixture
def asked(igakuqa_small, tmp_path, monkeypatch):
    """Write the prompts of a small IgakuQA, and the reply to each: right for every other question, by both prompts."""
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["exam", "prompts", "igakuqa", "--data", str(igakuqa_small), "--out", "prompts"])
    assert done.exit_code == 0, done.output
    replies, last = {}, {}
    for mode in ("plain", "explain"):
        lines = Path(f"prompts/igakuqa-{mode}.jsonl").read_text("utf-8").splitlines()
        for number, row in enumerate(map(json.loads, lines)):
            right = number % 2 == 0 or mode == "explain"
            answer = row["target"] if right else "わかりません"
            text = answer if mode == "plain" else f"理由を述べる。\n答え:{answer}"
            replies[row["text"]] = last[row["messages"][-1]["content"]] = text
    Path("text.json").write_text(json.dumps(replies), "utf-8")
    Path("messages.json").write_text(json.dumps(last), "utf-8")
    return igakuqa_small


def scores(files, data):
    """Return the share of right answers by prompt."""
    rows = medllm.score(files, "igakuqa", data=data).rows()
    assert len({row["model"] for row in rows}) == 1
    return {row["prompt"]: row["correct"] / row["questions"] for row in rows}


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.matrix
def test_lm_evaluation_harness_asks_our_prompts_and_score_reads_its_folder(asked):
    python = installed("lm_eval")
    words = [python, HERE / "harness.py", "text.json", "run", "--model", "half", "--include_path"]
    words += [ROOT / "integrations" / "lm_eval", "--tasks", "igakuqa_plain,igakuqa_explain", "--log_samples"]
    done = subprocess.run(
        [*map(str, words), "--output_path", "out"],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "PYTHONPATH": "", "HF_HUB_OFFLINE": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert scores("out", asked) == {"plain": 0.5, "explain": 1.0}
    results = json.loads(next(Path("out").rglob("results_*.json")).read_text("utf-8"))["results"]
    assert {name: results[name]["acc,none"] for name in results} == {"igakuqa_plain": 0.5, "igakuqa_explain": 1.0}


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.matrix
def test_inspect_asks_our_prompts_and_score_reads_its_logs(asked):
    python = installed("inspect_ai")
    words = [
        python,
        HERE / "inspected.py",
        ROOT / "integrations/inspect/igakuqa.py",
        "messages.json",
        "prompts",
        "logs",
    ]
    done = subprocess.run(
        list(map(str, words)),
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "PYTHONPATH": ""},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert scores("logs", asked) == {"plain": 0.5, "explain": 1.0}


def test_the_prompts_that_are_written_are_those_that_an_evaluation_asks(asked):
    from medllm.evaluation import build_exam_runs
    from medllm.recipe.settings import Evaluate

    settings = Evaluate(models={"m": "base"}, benchmarks=("igakuqa",), shots=3)
    (run,) = build_exam_runs(settings, {"igakuqa": asked})
    written = {}
    for mode in settings.prompts:
        lines = Path(f"prompts/igakuqa-{mode}.jsonl").read_text("utf-8").splitlines()
        written |= {(row["question_id"], mode): row for row in map(json.loads, lines)}
    assert {key[:2]: request.text for key, request in run.requests.items()} == {
        key: row["text"] for key, row in written.items()
    }
    assert all(
        list(request.messages) == written[key[:2]]["messages"] and list(request.stop) == written[key[:2]]["stop"]
        for key, request in run.requests.items()
    )
