"""Experts' votes from the Space or Label Studio, read as preference pairs; none on a question of a held-out exam."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medllm.errors import DataError
from medllm.exam.tables import table_rows
from medllm.preferences.pairs import PreferencePair

NEEDED = ("prompt", "chosen", "rejected", "question_id", "benchmark")
SELECTED = {"left": ("answer1", "answer2"), "right": ("answer2", "answer1")}


def read_votes(folder: Path, refused: frozenset[tuple[str, str]]) -> tuple[list[PreferencePair], int]:
    """Read all pairs of a folder and count the votes for neither side; a vote on a test question is refused."""
    files = [folder] if folder.is_file() else sorted(p for p in folder.rglob("*") if p.suffix in _READERS)
    if not files:
        raise DataError(
            "preferences.no-votes",
            f"{folder}: holds no votes. Give rows with {', '.join(NEEDED)} or a Label Studio JSON export.",
        )
    pairs, undecided = [], 0
    for file in files:
        for place, row in _READERS[file.suffix](file):
            if row is None:
                undecided += 1
                continue
            pairs.append(_voted_pair(row, place, refused))
    return pairs, undecided


def _rows(file: Path) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    yield from table_rows(file)


def _label_studio(file: Path) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    """Tasks whose data hold the prompt and both answers, with the side that was selected, once per annotator."""
    try:
        tasks = json.loads(file.read_text("utf-8"))
    except ValueError as fault:
        raise DataError(
            "preferences.not-json", f"{file}: is not JSON ({fault}). Export from Label Studio as JSON."
        ) from fault
    for number, task in enumerate(tasks if isinstance(tasks, list) else [tasks], 1):
        data = task.get("data", {})
        for annotation in task.get("annotations", ()):
            selected = [
                result["value"]["selected"]
                for result in annotation.get("result", ())
                if result.get("type") == "pairwise" and not annotation.get("was_cancelled")
            ]
            place = f"{file} task {task.get('id', number)}"
            sides = SELECTED.get(selected[0]) if selected else None
            if sides is None:
                yield place, None
                continue
            missing = [name for name in sides if name not in data]
            if missing:
                raise DataError(
                    "preferences.missing-columns",
                    f"{place}: its data lack {', '.join(missing)}. Keep `prompt`, `answer1`, `answer2`.",
                )
            yield place, {**data, "chosen": data[sides[0]], "rejected": data[sides[1]]}


_READERS = {".json": _label_studio, ".jsonl": _rows, ".parquet": _rows, ".csv": _rows}


def _voted_pair(row: Mapping[str, Any], place: str, refused: frozenset[tuple[str, str]]) -> PreferencePair:
    missing = [name for name in NEEDED if not row.get(name)]
    if missing:
        raise DataError(
            "preferences.missing-columns", f"{place}: lacks {', '.join(missing)}. A vote needs {', '.join(NEEDED)}."
        )
    if (row["benchmark"], row["question_id"]) in refused:
        raise DataError(
            "preferences.vote-on-held-out",
            f"{place}: votes on {row['benchmark']} {row['question_id']}, a question of a held-out exam. Such votes are "
            "for evaluation only; remove it.",
        )
    return PreferencePair(
        prompt=row["prompt"],
        prompt_without_shots=row.get("prompt_without_shots") or row["prompt"],
        chosen=row["chosen"],
        rejected=row["rejected"],
        pair="expert",
        origin="expert",
        question_id=row["question_id"],
        benchmark=row["benchmark"],
        model=row.get("model") or "expert",
        prompt_hash=row.get("prompt_hash") or hashlib.sha256(row["prompt"].encode()).hexdigest(),
    )
