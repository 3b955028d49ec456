"""Speed and memory of the corpus stage and of the audit alone, on Japanese text made from the real text.

    python benchmarks/corpus.py make   --data SHARED/data --megabytes 1000 --work DIR
    python benchmarks/corpus.py audit  --data SHARED/data --work DIR --workers 2
    python benchmarks/corpus.py stage  --data SHARED/data --work DIR --workers 2
    python benchmarks/corpus.py theirs --work DIR --workers 2      datatrove's own filters and MinHash, without ours

Each prints one line of JSON: megabytes of UTF-8 text, seconds by the clock and of the processor, megabytes a second,
the largest memory of any one process. `theirs` needs spaCy with Sudachi (pip install 'spacy[ja]').
"""

import argparse
import contextlib
import ctypes
import json
import os
import random
import re
import resource
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from datetime import date
from pathlib import Path


def sentences(data: Path) -> list[str]:
    """Every sentence of the real texts: pharmacopoeia, case reports, encyclopedia, explanations of exams."""
    texts = [json.loads(line)["in"] for line in (data / "text/pharmacopoeia_easy.jsonl").open("rb")]
    for name in ("medtxt_case_reports", "jaquad_contexts_medical"):
        texts += [json.loads(line)["text"] for line in (data / f"text/{name}.jsonl").open("rb")]
    for path in sorted((data / "yakugakuqa").glob("*.jsonl")):
        texts += [json.loads(line)["comment"] or "" for line in path.open("rb")]
    parts = (part.strip() for text in texts for part in re.split(r"(?<=[。．])", text))
    return sorted({part for part in parts if 10 <= len(part) <= 400})


def make(args: argparse.Namespace) -> None:
    """Documents of 5 to 60 sentences drawn at random; one in fifty is an earlier one with a few sentences changed."""
    draw, pool, held = random.Random(1), sentences(args.data), 0
    folder = args.work / "texts"
    folder.mkdir(parents=True, exist_ok=True)
    recent: list[list[str]] = []
    with (folder / "texts.jsonl").open("w", encoding="utf-8") as stream:
        number = 0
        while held < args.megabytes * 1_000_000:
            number += 1
            chosen = draw.choices(pool, k=draw.randint(5, 60))
            if recent and draw.random() < 0.02:
                chosen = list(draw.choice(recent))
                chosen[draw.randrange(len(chosen))] = draw.choice(pool)
            recent = [*recent[-999:], chosen]
            text = "".join(chosen)
            day = date(2000 + draw.randrange(17), 1 + draw.randrange(12), 1 + draw.randrange(28))
            row = {"id": str(number), "text": text, "published": day.isoformat(), "license": "cc-by-4.0"}
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
            held += len(text.encode())


def size(args: argparse.Namespace) -> int:
    """Bytes of text in the file that was made."""
    return sum(len(json.loads(line)["text"].encode()) for line in (args.work / "texts/texts.jsonl").open("rb"))


def audit(args: argparse.Namespace) -> None:
    """The audit alone, against all of IgakuQA."""
    from medllm.corpus.decontaminate.audit import AuditRequest, audit_source
    from medllm.corpus.decontaminate.exam_items import held_out
    from medllm.corpus.read.sources import TextSource

    asked = AuditRequest(tuple(held_out([("igakuqa", args.data / "igakuqa")])))
    report = audit_source(TextSource("texts", args.work / "texts"), asked, workers=args.workers)
    print(json.dumps(report.totals()))


def stage(args: argparse.Namespace) -> None:
    """The whole corpus stage."""
    from medllm.recipe.data import Corpus
    from medllm.stages.corpus import make as make_corpus

    values = {"data": ["./texts"], "held_out": ["igakuqa"], "cutoff": date(2017, 12, 31), "min_japanese_share": 0.3}
    out = args.work / "corpus"
    shutil.rmtree(out, ignore_errors=True)
    folders = {"./texts": args.work / "texts", "igakuqa": args.data / "igakuqa"}
    make_corpus(Corpus.model_validate({**values, "workers": args.workers}), folders, out)
    facts = json.loads((out / "facts.json").read_text("utf-8"))
    print(json.dumps({name: facts[name] for name in ("documents", "dropped", "reasons")}))


def theirs(args: argparse.Namespace) -> None:
    """The repetition and quality filters and MinHash of datatrove as its example pipeline has them, set to Japanese."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import (
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter
    from datatrove.utils.hashing import HashConfig
    from datatrove.utils.typeshelper import Languages

    work = args.work / "theirs"
    shutil.rmtree(work, ignore_errors=True)
    cut(args.work / "texts/texts.jsonl", work / "in", 8)
    # Its default hash does not work with xxhash 4.
    config = MinhashConfig(hash_config=HashConfig(hash_fc="sha1"))
    language = Languages.japanese
    kept = str(work / "kept")
    pipelines = [
        [
            JsonlReader(str(work / "in")),
            GopherRepetitionFilter(language=language),
            GopherQualityFilter(language=language, min_stop_words=0, min_avg_word_length=1),
            JsonlWriter(kept, compression=None),
        ],
        [JsonlReader(kept), MinhashDedupSignature(str(work / "sig"), config=config, language=language)],
        [MinhashDedupBuckets(str(work / "sig"), str(work / "dup"), config=config)],
        [MinhashDedupCluster(str(work / "dup"), str(work / "rem"), config=config)],
        [JsonlReader(kept), MinhashDedupFilter(str(work / "rem")), JsonlWriter(str(work / "out"), compression=None)],
    ]
    for number, pipeline in enumerate(pipelines):
        tasks = {2: config.num_buckets, 3: 1}.get(number, 8)
        LocalPipelineExecutor(pipeline, tasks, min(args.workers, tasks), str(work / f"log{number}")).run()


def cut(path: Path, folder: Path, parts: int) -> None:
    """The lines of a file dealt out to several, because datatrove shares out files and not lines."""
    folder.mkdir(parents=True)
    streams = [(folder / f"{number}.jsonl").open("wb") for number in range(parts)]
    with path.open("rb") as lines:
        for number, line in enumerate(lines):
            streams[number % parts].write(line)
    for stream in streams:
        stream.close()


def apart(work: Callable[[], None]) -> resource.struct_rusage:
    """Do it in a child and wait for what it leaves behind too: a pool's processes are not its children."""
    ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: orphans below become ours
    if (child := os.fork()) == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        sys.stdout.flush()
        sys.exit(0)
    failed = False
    with contextlib.suppress(ChildProcessError):
        while True:
            process, status = os.wait()
            failed |= process == child and status != 0
    if failed:
        sys.exit(1)
    return resource.getrusage(resource.RUSAGE_CHILDREN)


def main() -> None:
    """Run what was asked for and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["make", "audit", "stage", "theirs"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    run: Callable[[argparse.Namespace], None] = {"make": make, "audit": audit, "stage": stage, "theirs": theirs}[
        args.what
    ]
    start = time.monotonic()
    spent = apart(lambda: run(args))
    seconds = time.monotonic() - start
    processor = spent.ru_utime + spent.ru_stime
    held = size(args) / 1e6
    figures = {
        "what": args.what,
        "workers": args.workers,
        "megabytes": round(held, 1),
        "seconds": round(seconds, 1),
        "processor_seconds": round(processor, 1),
        "megabytes_a_second": round(held / seconds, 2),
        "megabytes_a_processor_second": round(held / processor, 2),
        "largest_process_megabytes": round(spent.ru_maxrss / 1024),
        "load": [round(load, 1) for load in os.getloadavg()],
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
