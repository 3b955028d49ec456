"""Recall and precision of near-duplicate removal on real texts with planted copies at several rates of edits.

python benchmarks/duplicates.py --data SHARED/data --work DIR
"""

import argparse
import json
import random
from collections import defaultdict
from datetime import date
from pathlib import Path

import pyarrow.parquet as pq

from medllm.corpus.decontaminate.ngrams import fold, hash_grams
from medllm.recipe.data import Corpus
from medllm.stages.corpus import make

RATES = (0.0, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1)
SIGNS = "一二三四五六七八九十百千万上下左右中大小"


def originals(data: Path) -> list[str]:
    """Encyclopedia paragraphs, case reports, monographs and explanations of 200 characters or more."""
    texts = [
        json.loads(line)["in"] for line in (data / "text/pharmacopoeia_easy.jsonl").read_text("utf-8").splitlines()
    ]
    for name in ("medtxt_case_reports", "jaquad_contexts_medical"):
        texts += [json.loads(line)["text"] for line in (data / f"text/{name}.jsonl").read_text("utf-8").splitlines()]
    for path in sorted((data / "yakugakuqa").glob("*.jsonl")):
        texts += [json.loads(line)["comment"] or "" for line in path.read_text("utf-8").splitlines()]
    return [text for text in dict.fromkeys(texts) if len(text) >= 200]


def shingles(text: str) -> set[int]:
    """The runs of five folded characters, without any hashing into buckets."""
    return set(hash_grams(fold(text), 5).tolist())


def likeness(one: set[int], other: set[int]) -> float:
    """Jaccard similarity."""
    return len(one & other) / max(len(one | other), 1)


def main() -> None:
    """Plant, curate, and hold what was dropped against the true similarity."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, required=True)
    args = parser.parse_args()
    draw, texts = random.Random(1), originals(args.data)
    rows = [(f"o{number}", "2010", text) for number, text in enumerate(texts)]
    for rate in RATES:
        for number in draw.sample(range(len(texts)), 300):
            copy = "".join(draw.choice(SIGNS) if draw.random() < rate else one for one in texts[number])
            rows.append((f"o{number}-{rate}", "2015", copy))
    folder = args.work / "texts"
    folder.mkdir(parents=True, exist_ok=True)
    written = (
        json.dumps({"id": name, "text": text, "published": year, "license": "cc0"}, ensure_ascii=False)
        for name, year, text in rows
    )
    (folder / "rows.jsonl").write_text("\n".join(written), "utf-8")
    values = {"data": ["./texts"], "held_out": ["igakuqa"], "cutoff": date(2017, 12, 31), "max_repetition": 1.0}
    settings = Corpus.model_validate({**values, "personal_data": "keep"})
    make(settings, {"./texts": folder, "igakuqa": args.data / "igakuqa"}, args.work / "out")
    report(args.work / "out", {name: text for name, _, text in rows})


def report(out: Path, texts: dict[str, str]) -> None:
    """One line for each rate, and the true similarity of everything that was dropped to what it was dropped for."""
    tables = [pq.read_table(out / name).to_pylist() for name in ("corpus", "dropped")]
    names = {row["id"]: row["locator"].partition("#")[2] for table in tables for row in table}
    gone = {names[row["id"]]: names[row["detail"].split()[1].rstrip(",")] for row in tables[1]}
    true: dict[str, list[float]] = defaultdict(list)
    found: dict[str, int] = defaultdict(int)
    for name in texts:
        original, _, rate = name.partition("-")
        if rate:
            true[rate].append(likeness(shingles(texts[name]), shingles(texts[original])))
            found[rate] += name in gone
    for rate, likenesses in true.items():
        mean = sum(likenesses) / len(likenesses)
        print(f"edits {float(rate):6.1%}  true similarity {mean:.2f}  found {found[rate]} of {len(likenesses)}")
    alike = [likeness(shingles(texts[name]), shingles(texts[older])) for name, older in gone.items()]
    right = sum(one >= 0.7 for one in alike)
    originals_gone = sum("-" not in name for name in gone)
    strictly = sum(one >= 0.8 for one in alike)
    print(f"dropped {len(alike)}; truly alike by 0.8 {strictly}, by 0.7 {right}, least {min(alike):.2f}")
    print(f"originals dropped {originals_gone} of {sum('-' not in name for name in texts)}")


if __name__ == "__main__":
    main()
