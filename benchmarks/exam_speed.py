"""How long scoring and the stability report take on 12,000 invented records, and where the time goes.

Run: python benchmarks/exam_speed.py [--keep FILE.parquet]
"""

import argparse
import cProfile
import os
import pstats
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from medllm.exam.grading import grade
from medllm.exam.predictions import read_predictions
from medllm.exam.question import Question, index
from medllm.exam.record import Record, read_records, write_records
from medllm.exam.scoring import score
from medllm.exam.stability.report import stability_report

MODELS = {"base": (0.80, 0.71), "cpt": (0.867, 0.834), "final": (0.868, 0.868)}
"""The paper's scores, as the chances with which the invented models are right."""


def exam() -> list[Question]:
    """Five years of 400 questions with points, sections and vignettes like IgakuQA's."""
    questions = []
    for year in range(2018, 2023):
        for number in range(400):
            section = "ABCDEF"[number // 67]
            questions.append(
                Question(
                    question_id=f"{year}{section}{number}",
                    benchmark="invented",
                    text=f"{year}年の問題{number}。正しいのはどれか。",
                    choices=("ア", "イ", "ウ", "エ", "オ"),
                    gold=(frozenset("abcde"[number % 5]),),
                    key=("abcde"[number % 5],),
                    year=year,
                    section=section,
                    required=section in "BE",
                    points=3 if section in "BE" and number % 2 else 1,
                    category=f"科目{number % 28}",
                    vignette_id=f"{year}-case-{number // 3}" if number % 8 < 3 and number > 320 else None,
                )
            )
    return questions


def replies(questions: list[Question]) -> Iterator[Record]:
    """One reply per question, model and prompt: mostly readable, some unparsed, cut off or running on."""
    chance = random.Random(2026)
    sentence = "この症例では症状と検査所見から診断を考える。選択肢を順に検討すると、" * 12
    for model, rates in MODELS.items():
        for prompt, rate in zip(("plain", "explain"), rates, strict=True):
            for question in questions:
                gold = question.gold_answer
                letter = gold if chance.random() < rate else chance.choice([x for x in "abcde" if x != gold])
                text = letter if prompt == "plain" else f"{sentence}\n答え:{letter}"
                cut = prompt == "explain" and chance.random() < 0.01
                yield grade(
                    question,
                    sentence if cut else text,
                    model=model,
                    prompt="explain" if prompt == "explain" else "plain",
                    finish_reason="length" if cut else "stop",
                )


def timed(name: str, run: Callable[[], object], times: int = 5) -> None:
    """Print a step's least wall time, and its least processor time, which a busy machine does not lengthen."""
    wall, processor = [], []
    for _ in range(times):
        begin, used = time.perf_counter(), time.process_time()
        run()
        wall.append(time.perf_counter() - begin)
        processor.append(time.process_time() - used)
    print(f"{name:<44}{min(wall):7.2f} s wall {min(processor):7.2f} s processor   least of {times}")


def main() -> None:
    """Time each step, the whole, and show the profile of the whole."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, help="also keep the invented records in this file")
    keep = parser.parse_args().keep
    questions = exam()
    records = list(replies(questions))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "records.parquet"
        write_records(records, file)
        if keep:
            write_records(records, keep)
        known = index(questions)

        def score_all() -> object:
            return score(questions, read_predictions([file], known, "invented"))

        print(f"{len(records):,} records, {os.cpu_count()} cores")
        timed("read the records", lambda: read_records(file))
        timed("stability report of records in memory", lambda: stability_report(records))
        timed("stability report from the file", lambda: stability_report(read_records(file)))
        timed("score of all six systems from the file", score_all)
        timed("both, from the file", lambda: (stability_report(read_records(file)), score_all()))
        profile = cProfile.Profile()
        profile.runcall(lambda: stability_report(read_records(file)))
        pstats.Stats(profile).sort_stats("tottime").print_stats(12)


if __name__ == "__main__":
    main()
