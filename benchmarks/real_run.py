"""The whole method on a real small model, real exams and texts, from corpus to evaluation; seconds and facts of each.

Run: python benchmarks/real_run.py MODEL_FOLDER DATA_FOLDER OUT [--scale 1] [--items 40]
DATA_FOLDER holds igakuqa/, yakugakuqa/ and text/. Run again after an interruption, it goes on.

Learnt are the pharmacist exams of 2012 to 2017; asked are IgakuQA and the pharmacist exams of 2018 and later. On which
day their explanations were first printed nobody says: the set is of 2024, and by that day the corpus stage drops all of
them. `PRINTED` states, as a recipe may, that they are as old as their exams. That is an assumption, good enough to try
the machinery on real text, and these models are not for publishing.
"""

import argparse
import json
import shutil
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from medllm.recipe.settings import Corpus, Cpt, Evaluate, Lora, Merge, Preferences, Rpo
from medllm.stages import corpus, cpt, evaluate, merge, preferences, rpo

CUTOFF = date(2017, 12, 31)
PRINTED = CUTOFF
OLD, NEW = range(97, 103), range(103, 110)
"""The pharmacist exams of 2012 to 2017, and of 2018 to 2024."""
HELD_OUT = ("igakuqa", "yakugakuqa")
TEXTS: dict[str, dict[str, Any]] = {
    "pharmacopoeia_easy": {"columns": {"text": "in"}, "published": date(2021, 6, 7), "licence": "cc-by-sa-4.0"},
    "medtxt_case_reports": {"published": date(2022, 12, 31), "licence": "cc-by-4.0"},
    "jaquad_contexts_medical": {"published": date(2022, 12, 31), "licence": "cc-by-sa-3.0"},
}


def part_exams(data: Path, out: Path) -> dict[str, Path]:
    """Old and new exams in folders of their own, which is what the cutoff parts them by as well."""
    for name, numbers in (("old", OLD), ("new", NEW)):
        (out / name).mkdir(parents=True, exist_ok=True)
        for number in numbers:
            shutil.copyfile(data / "yakugakuqa" / f"{number:03}.jsonl", out / name / f"{number:03}.jsonl")
    texts = {f"./{name}": data / "text" / f"{name}.jsonl" for name in TEXTS}
    return {"old": out / "old", "igakuqa": data / "igakuqa", "yakugakuqa": out / "new", **texts}


def timed(name: str, work: Callable[[], None], facts: Path) -> None:
    """Do one stage and print what it took and what it says of itself."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    told = json.loads((facts / "facts.json").read_text("utf-8"))
    kept = {key: value for key, value in told.items() if key not in ("settings", "index", "stage", "languages")}
    print(f"{name}: {time.process_time() - cpu:.0f} s CPU, {time.perf_counter() - wall:.0f} s wall", flush=True)
    print(json.dumps(kept, ensure_ascii=False, default=str), flush=True)


def settings(scale: float, items: int) -> dict[str, Any]:
    """A short run; `scale` multiplies steps and questions, `items` is how many of each exam are asked at the end."""

    def times(count: int) -> int:
        return max(1, round(count * scale))

    training = {"dtype": "bfloat16", "gradient_checkpointing": False, "logging_steps": 1, "trackers": ()}
    past = {"source": "old", "exam": "yakugakuqa", "published": PRINTED, "licence": "cc-by-sa-4.0"}
    texts = [{"source": f"./{name}", **told} for name, told in TEXTS.items()]
    return {
        "corpus": Corpus(
            data=[past, *texts], held_out=HELD_OUT, cutoff=CUTOFF
        ),
        "cpt": Cpt(
            lora=Lora(r=16, lora_alpha=32), max_steps=times(24), batch_size=4, per_device_batch_size=2, max_length=512,
            learning_rate=2e-4, save_steps=8, **training,
        ),
        "preferences": Preferences(
            model="cpt", data=[past], held_out=HELD_OUT, cutoff=CUTOFF, questions=times(32), samples=4, shots=1,
            max_new_tokens=256, batch_size=16,
        ),
        "rpo": Rpo(
            model="cpt", rpo_alpha=10, max_steps=times(12), batch_size=2, max_length=1024, learning_rate=5e-5,
            shots="drop", warmup=0.1, save_steps=8, **training,
        ),
        "merge": Merge(model="rpo", certify=times(8)),
        "evaluate": Evaluate(
            models={"base": "base", "cpt": "cpt", "final": "rpo"}, benchmarks=HELD_OUT,
            shots={"igakuqa": 3, "yakugakuqa": 0}, limit=items, batch_size=8,
            max_new_tokens={"plain": 8, "explain": 96},
        ),
    }  # fmt: skip


def main() -> None:
    """All stages in order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "data", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--items", type=int, default=40)
    given = parser.parse_args()
    out, told = given.out, settings(given.scale, given.items)
    sources = {name: out / name for name in ("corpus", "cpt", "preferences", "rpo")}
    sources |= {"base": given.model, **part_exams(given.data, out)}
    stages = {
        "corpus": corpus,
        "cpt": cpt,
        "preferences": preferences,
        "rpo": rpo,
        "merge": merge,
        "evaluate": evaluate,
    }
    for name, stage in stages.items():
        if (out / name / "facts.json").is_file():
            continue
        timed(name, lambda s=stage, n=name: s.make(told[n], sources, out / n), out / name)  # type: ignore[misc]


if __name__ == "__main__":
    main()
