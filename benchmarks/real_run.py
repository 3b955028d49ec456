"""The whole method on a real small model and real exams, from corpus to evaluation; seconds and facts of each stage.

Run: python benchmarks/real_run.py MODEL_FOLDER IGAKUQA_FOLDER YAKUGAKUQA_FOLDER OUT [--scale 1]
Run again after an interruption, it goes on. Only exams of 2017 and before are learnt. The explanations of YakugakuQA
were published with the set in 2024, so this is a trial of the machinery and no model to publish.
"""

import argparse
import json
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medllm.exam.benchmarks import load
from medllm.exam.prompts import ask, reply
from medllm.exam.question import Question
from medllm.recipe.settings import Cpt, Evaluate, Lora, Merge, Preferences, Rpo
from medllm.stages import cpt, evaluate, merge, preferences, rpo

CUTOFF = date(2017, 12, 31)


def usable(folder: Path) -> list[Question]:
    """Questions in words, with an explanation and a date."""
    return [q for q in load("yakugakuqa", folder) if not q.image and q.explanation and q.exam_date and q.choices]


def write_corpus(questions: list[Question], out: Path) -> None:
    """Each past question with its explanation and answer, as the paper's corpus has them."""
    texts = [f"{ask(q, 'explain', 'paper')} {reply(q, 'explain', 'paper')}" for q in questions]
    (out / "corpus").mkdir(parents=True, exist_ok=True)
    table = pa.table({"id": [q.question_id for q in questions], "text": texts})
    pq.write_table(table, out / "corpus" / "train.parquet")


def write_exam(questions: list[Question], out: Path) -> None:
    """Questions in our own columns."""
    out.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "question_id": q.question_id,
            "text": q.text,
            "choices": list(q.choices),
            "answer": q.gold_answer,
            "exam_date": str(q.exam_date),
            "year": q.year,
            "explanation": q.explanation,
        }
        for q in questions
    ]
    (out / "exam.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def timed(name: str, work: Callable[[], None], facts: Path) -> None:
    """Do one stage and print what it took and what it says of itself."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    told = json.loads((facts / "facts.json").read_text("utf-8"))
    kept = {key: value for key, value in told.items() if key not in ("settings", "index", "stage", "languages")}
    print(f"{name}: {time.process_time() - cpu:.0f} s CPU, {time.perf_counter() - wall:.0f} s wall", flush=True)
    print(json.dumps(kept, ensure_ascii=False, default=str), flush=True)


def settings(scale: float) -> dict[str, Any]:
    """A short run; `scale` multiplies steps and questions."""

    def times(count: int) -> int:
        return max(1, round(count * scale))

    training = {"dtype": "bfloat16", "gradient_checkpointing": False, "logging_steps": 1, "trackers": ()}
    own = {"source": "old", "exam": "own"}
    return {
        "cpt": Cpt(
            lora=Lora(r=16, lora_alpha=32), max_steps=times(8), batch_size=2, per_device_batch_size=2, max_length=384,
            learning_rate=2e-4, **training,
        ),
        "preferences": Preferences(
            model="cpt", data=[own], cutoff=CUTOFF, questions=times(8), samples=3, shots=1, max_new_tokens=64,
            batch_size=8,
        ),
        "rpo": Rpo(
            model="cpt", rpo_alpha=10, max_steps=times(4), batch_size=2, max_length=1536, learning_rate=5e-5,
            shots="drop", warmup=0.1, **training,
        ),
        "merge": Merge(model="rpo", certify=times(4)),
        "evaluate": Evaluate(
            models={"base": "base", "cpt": "cpt", "final": "rpo"}, benchmarks=("igakuqa", "yakugakuqa"),
            shots={"igakuqa": 3, "yakugakuqa": 0}, limit=times(8), batch_size=8,
            max_new_tokens={"plain": 8, "explain": 64},
        ),
    }  # fmt: skip


def main() -> None:
    """All stages in order."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("model", "igakuqa", "yakugakuqa", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--scale", type=float, default=1.0)
    given = parser.parse_args()
    out, told = given.out, settings(given.scale)
    questions = usable(given.yakugakuqa)
    old = [q for q in questions if q.exam_date and q.exam_date <= CUTOFF]
    write_corpus(old, out / "corpus")
    write_exam(old, out / "old")
    sources = {name: out / name for name in ("corpus", "old", "cpt", "preferences", "rpo")}
    sources |= {"base": given.model, "igakuqa": given.igakuqa, "yakugakuqa": given.yakugakuqa}
    told["evaluate"] = told["evaluate"].model_copy(update={"years": tuple(range(2018, 2025))})
    for name, stage in (("cpt", cpt), ("preferences", preferences), ("rpo", rpo), ("merge", merge)):
        timed(name, lambda s=stage, n=name: s.make(told[n], sources, out / n), out / name)  # type: ignore[misc]
    timed("evaluate", lambda: evaluate.make(told["evaluate"], sources, out / "evaluate"), out / "evaluate")


if __name__ == "__main__":
    main()
