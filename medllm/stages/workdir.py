"""The folder a stage works in: it outlives an interruption, and appears under its name only when it is whole."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from medllm.files import replace_folder, write_text

FACTS = "facts.json"


def say(stage: str, line: str) -> None:
    """Print one progress line to stderr; the results of a stage go into its folder, never to stdout."""
    sys.stderr.write(f"{stage}: {line}\n")


def write_facts(out: Path, facts: dict[str, Any]) -> None:
    """Write facts.json, whole or not at all: the file marks the folder as finished."""
    write_text(out / FACTS, json.dumps(facts, ensure_ascii=False, indent=1, default=str) + "\n")


def work_folder(out: Path) -> Path:
    """Create the work folder beside `out`; the folder survives an interrupted run."""
    work = out.with_name(out.name + ".part")
    work.mkdir(parents=True, exist_ok=True)
    return work


def finish_interrupted_move(out: Path, leave_out: tuple[str, ...]) -> bool:
    """Move a folder into place that an earlier run finished but was stopped before it could move it."""
    work = out.with_name(out.name + ".part")
    if not (work / FACTS).is_file():
        return False
    move_into_place(work, out, leave_out)
    return True


def round_of(model: Path | None) -> int:
    """Return the number of the round that trained a model, as its facts.json has it; 0 where none did."""
    path = model / FACTS if model is not None else None
    if path is None or not path.is_file():
        return 0
    values = json.loads(path.read_text("utf-8"))
    return int(values.get("round", 0)) if values.get("stage") in ("rpo", "rounds") else 0


def move_into_place(work: Path, out: Path, leave_out: tuple[str, ...]) -> None:
    """Move the finished folder into place at once, without its intermediate files."""
    for name in leave_out:
        path = work / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    replace_folder(work, out)
