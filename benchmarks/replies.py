"""How well real replies are read: whole ones against their publishers' marks, cut-off thinking against none.

Run: MEDLLM_SHARED_DATA=FOLDER python benchmarks/replies.py

FOLDER holds `jmle2026/` (JMLE2026-Bench: replies with `predicted`, some with `reasoning`) and `igakuqa119/` (the
answers of two models of 72B to section B of the 119th exam, as fields: each reply is put together in three forms).
"""

import csv
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medllm.exam.benchmarks import load
from medllm.exam.extract.answer import parse
from medllm.exam.question import Question, index

CUTS = (0.5, 0.7, 0.9)
CONDITIONS: dict[str, dict[str, Any]] = {
    "thinks=True": {"thinks": True},
    'finish_reason="length"': {"finish_reason": "length"},
    "nothing known": {},
}


def whole_replies(folder: Path) -> None:
    """Print the agreement on whole replies and the share of cut thinking that is read as an answer, by file."""
    questions = index(load("jmle2026", folder))
    same = total = 0
    for file in sorted((folder / "model_outputs").glob("*.json")):
        rows = json.loads(file.read_text(encoding="utf-8"))["results"]
        for row in rows:
            total += 1
            read = parse(row["raw_response"], questions[row["question_id"]]).answer
            same += read == ",".join(sorted(row["predicted"]))
        chains = [(questions[row["question_id"]], row["reasoning"]) for row in rows if row.get("reasoning")]
        for cut in CUTS if chains else ():
            shares = {
                name: sum(
                    parse(chain[: int(len(chain) * cut)], question, **given).answer is not None
                    for question, chain in chains
                )
                / len(chains)
                for name, given in CONDITIONS.items()
            }
            line = "   ".join(f"{name} {share:.1%}" for name, share in shares.items())
            print(f"{file.stem:<50} thinking cut at {cut:.0%}: {line}")
    print(f"whole replies of JMLE2026-Bench: {same:,} of {total:,} as recorded ({same / total:.2%})")


def forms(answer: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The reply put together from its published fields."""
    fields = {name: answer[name] or "" for name in ("answer", "confidence", "explanation")}
    yield "lines", "\n".join(f"{name}: {value}" for name, value in fields.items())
    yield "Japanese lines", f"答え: {fields['answer']}\n解説: {fields['explanation']}"
    yield "JSON", json.dumps(fields, ensure_ascii=False)


def answers_that_run_on(folder: Path) -> None:
    """Print how many replies that answer first and then run on are read by their answer."""
    with (folder / "correct_answers_119B.csv").open(encoding="utf-8-sig") as rows:
        keys = {row[0]: row[1].replace(" ", "") for row in csv.reader(rows)}
    for file in sorted(folder.glob("119B_*72b.json")):
        same: Counter[str] = Counter()
        results = json.loads(file.read_text(encoding="utf-8"))["results"]
        for row in results:
            key = keys[row["question_number"]]
            question = Question(
                question_id=row["question_number"],
                benchmark="igakuqa119",
                text=row["question_text"],
                choices=tuple(choice[3:] for choice in row["choices"]),
                gold=(frozenset(key.replace(",", "")) if row["choices"] else frozenset({key}),),
                key=(key,),
                numeric=not row["choices"],
            )
            answer = row["answers"][0]
            expected = parse(str(answer["answer"]), question).answer
            for form, reply in forms(answer):
                same[form] += parse(reply, question).answer == expected
        line = "   ".join(f"{form} {count} of {len(results)}" for form, count in same.items())
        print(f"{file.stem:<50} read by its first answer: {line}")


def main() -> None:
    """Measure on the folder that MEDLLM_SHARED_DATA names."""
    folder = Path(os.environ["MEDLLM_SHARED_DATA"])
    whole_replies(folder / "jmle2026")
    answers_that_run_on(folder / "igakuqa119")


if __name__ == "__main__":
    main()
