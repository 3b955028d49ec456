"""A run of small real stages, which a test may kill at any moment."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from medllm.exam.record import Record, write_records
from medllm.hub import connect, digest_of_folder
from medllm.pipeline import BuildContext, gate, lineage, make, make_plan, run
from medllm.pipeline.content import RECORDS
from medllm.recipe import read_recipe, settings_for_digest

STEPS = 5

RECIPE = """
name: toy
base: ./base
namespace: clinic
cutoff: 2017-12-31
exams: {world: {source: ./world, first: 2020-01-01}}
corpus: {data: ./texts, held_out: [world]}
cpt: {lora: {r: 4, lora_alpha: 8}, num_train_epochs: 1}
preferences: {model: cpt, data: ./texts}
rpo: {model: cpt, rpo_alpha: 10, num_train_epochs: 1}
merge: {model: rpo}
evaluate: {models: {base: base, cpt: cpt, final: rpo}, benchmarks: [world]}
ablations:
  cpt-dpo: {rpo.rpo_alpha: 0}
"""


def lay_out(folder: Path) -> None:
    """Write the recipe and what it reads."""
    for name, content in {"base/config.json": "{}", "texts/a.txt": "text", "world/q.jsonl": "{}"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    (folder / "toy.yaml").write_text(RECIPE)


def maker(stage: str):
    """A stage that works in steps, leaves each beside its output, and goes on from the last one."""

    def work(settings, sources, out: Path) -> None:
        part = out.with_name(out.name + ".part")
        part.mkdir(exist_ok=True)
        seen = {name: sorted(path.name for path in place.iterdir()) for name, place in sources.items()}
        for step in range(STEPS):
            if not (part / f"step-{step}.bin").exists():
                time.sleep(0.02)
                aside = part / "aside"
                aside.write_bytes(hashlib.sha256(f"{stage}{step}".encode()).digest() * 4000)
                aside.replace(part / f"step-{step}.bin")
        if stage == "evaluate":
            write_records(answers(settings), part / "records" / "all.parquet")
        (part / "facts.json").write_text(json.dumps({"stage": stage, "seen": seen}, sort_keys=True))
        part.replace(out)

    return work


def write_content(stage: str, settings, sources: dict[str, Path], part: Path) -> None:
    """Write what later stages read: equal for equal settings and equal content of the sources, whatever their names."""
    asked = json.dumps(settings_for_digest(settings), sort_keys=True, default=str)
    if stage == "corpus":
        files = list(sources["./texts"].iterdir()) if "./texts" in sources else []
        rows = [{"text": text} for text in sorted([asked, *(path.read_text() for path in files)])]
        _table(rows, part / "corpus" / "toy.parquet")
        return
    read = [digest_of_folder(place, without=(*RECORDS, "seen.json")) for _, place in sorted(sources.items())]
    if stage == "teach":
        _table([{"messages": asked, "explanation": one} for one in read], part / "data" / "toy.parquet")
    elif stage == "preferences":
        _table([{"prompt": asked, "chosen": one, "rejected": ""} for one in read], part / "data" / "toy.parquet")
    else:
        (part / "weights.json").write_text(json.dumps([asked, read]))


def _table(rows: list[dict[str, str]], path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def answers(settings) -> Iterator[Record]:
    """Forty answers of each model, plain and explained, right or wrong by the model's name."""
    for model in settings.models:
        for prompt in ("plain", "explain"):
            for number in range(40):
                drawn = hashlib.sha256(f"{model}{prompt}{number}".encode()).digest()[0]
                right = drawn < (200 if prompt == "plain" or model == "final" else 120)
                yield Record(
                    question_id=f"q{number}",
                    benchmark="world",
                    model=model,
                    prompt=prompt,
                    status="answered",
                    correct=right,
                    points=float(right),
                    points_total=1.0,
                    answer="a",
                    gold="a" if right else "b",
                )


def without_dataset_cards() -> None:
    """The toy stages have neither the facts that the cards of real datasets contain, nor weights and tables."""
    for stage in ("corpus", "teach", "preferences", "evaluate", "space"):
        lineage.TEMPLATES.pop(stage, None)
    gate.CHECKS.clear()


def main(folder: Path, say: Callable[[str], None]) -> None:
    """Run the whole recipe."""
    without_dataset_cards()

    def launch(plan, item, made, bench) -> None:
        make(plan, item, made, maker(item.stage), bench)

    with connect(str(folder / "hub"), "clinic") as hub:
        plan = make_plan(read_recipe(folder / "toy.yaml"), hub)
        run(plan, BuildContext(hub, folder / "runs", say), launch, lambda plan: None)
