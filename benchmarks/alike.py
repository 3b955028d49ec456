"""Memory of the pass that decides who of alike texts stays, by how many there are, beside datatrove's own step.

    python benchmarks/alike.py --millions 1 2 4 --work DIR              ours, each in a process of its own
    python benchmarks/alike.py --millions 0.1 1 10 --work DIR --clusters    ours, the clusters and their order alone
    python benchmarks/alike.py --millions 0.25 0.5 1 --work DIR --theirs    datatrove's clusters from the same pairs

What the passes before would leave (signatures, facts, pairs) is made up: families of four, most of each alike;
one text in two is general text for the replay. Each line of JSON has the largest memory of the process in megabytes.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

FAMILY = 4
EDGES = 2
"""Pairs drawn for each text with a text of its family; one in four is with itself and left out."""
TASK = 15_000
"""Texts of one task: about as many as 32 MB hold."""


def lay_out(work: Path, texts: int) -> int:
    """Facts, signatures and pairs of so many texts, a task at a time; returns how many tasks they are."""
    from medllm.corpus.steps import FACTS, part

    draw = np.random.default_rng(1)
    tasks = -(-texts // TASK)
    for task in range(tasks):
        count = min(TASK, texts - task * TASK)
        families = (np.arange(count) + task * TASK) // FAMILY
        facts = np.zeros(count, FACTS)
        facts["published"], facts["length"] = draw.integers(700_000, 730_000, count), 2000
        facts["text"] = draw.integers(1, 1 << 60, count)
        facts["replay"] = families % 2 == 0
        facts["id"] = [b"%016x" % number for number in draw.integers(0, 1 << 60, count)]
        np.save(part(work, "facts", task, "npy"), facts)
        hashes = np.repeat(families.astype(np.uint32)[:, None] * 100, 100, axis=1) + np.arange(100, dtype=np.uint32)
        hashes[draw.random(count) < 0.25] = draw.integers(0, 1 << 32, 100, np.uint32)
        np.save(part(work, "hashes", task, "npy"), hashes)
    numbers = draw.permutation(np.repeat(np.arange(texts), EDGES))
    others = np.minimum(numbers // FAMILY * FAMILY + draw.integers(0, FAMILY, len(numbers)), texts - 1)
    numbers, others = numbers[numbers != others], others[numbers != others]
    rows = np.column_stack([numbers // TASK, numbers % TASK, others // TASK, others % TASK])
    for bucket in range(20):  # datatrove wants a file for each bucket
        rows[bucket::20].astype("<u4").tofile(part(work, "pairs", bucket, "dups").with_name(f"{bucket:05d}_00.dups"))
    return tasks


def measure(texts: int, work: Path, what: str) -> None:
    """Run the pass and print its figures; the memory is this process's, so it measures once."""
    from datatrove.pipeline.dedup import MinhashDedupCluster
    from datatrove.utils.logging import logger

    from medllm.corpus.dedup import CONFIG, KeptTexts, Resolve, clusters

    logger.disable("datatrove")
    tasks = len(list((work / "facts").iterdir()))
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    if what == "theirs":
        MinhashDedupCluster(
            str(work / "pairs"), str(work / "theirs"), config=CONFIG, save_cluster_id=True, lines_to_buffer=1000
        ).run(None, 0, 1)
    elif what == "clusters":
        clusters(KeptTexts(work, tasks))
    else:
        Resolve(work, tasks, 0.8, 0.1).run()
    after = resource.getrusage(resource.RUSAGE_SELF)
    figures = {
        "what": what,
        "texts": texts,
        "tasks": tasks,
        "seconds": round(time.monotonic() - start, 1),
        "processor_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "megabytes_before": round(before.ru_maxrss / 1024),
        "megabytes_at_most": round(after.ru_maxrss / 1024),
    }
    print(json.dumps(figures))


def main() -> None:
    """Lay out and measure each number of texts, or, in a process of its own, measure one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=float, nargs="+", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--theirs", action="store_true")
    parser.add_argument("--clusters", action="store_true")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    what = "theirs" if args.theirs else "clusters" if args.clusters else "ours"
    for millions in args.millions:
        texts = int(millions * 1e6)
        if args.one:
            measure(texts, args.work, what)
            continue
        work = args.work / "alike"
        shutil.rmtree(work, ignore_errors=True)
        lay_out(work, texts)
        more = ["--one", *([f"--{what}"] if what != "ours" else [])]
        subprocess.run([sys.executable, __file__, "--millions", str(millions), "--work", str(work), *more], check=True)
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
