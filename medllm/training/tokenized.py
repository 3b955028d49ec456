"""Tokens of a training's data, made once, before the processes of the training know each other."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path

from datasets import Dataset, load_from_disk

from medllm.files import atomic_folder
from medllm.recipe.settings import Cpt, Rpo
from medllm.training.devices import split_batch
from medllm.training.load import tokenizer_folder
from medllm.training.ranks import is_chief, world

TALLY = "tally.json"
LOOK = 0.2
"""Seconds between two looks for data that another process makes."""


def prepared(
    settings: Cpt | Rpo,
    sources: dict[str, Path],
    work: Path,
    make: Callable[[Path], tuple[Dataset, dict[str, int]]],
) -> tuple[Dataset, dict[str, int]]:
    """The rows and their account, from the work folder where they are already made.

    The first process makes them (or the one that starts the others), however long that takes; the others look for the
    finished folder instead of waiting in an exchange, which would give up after some minutes. `make` is given the
    tokenizer's folder. Raises TrainingError before any work where the batch cannot be split.
    """
    split_batch(settings.total_batch_size, settings.per_device_train_batch_size, world())
    tokenizer = tokenizer_folder(settings, sources)
    folder = work / "cache" / f"tokens-{_key(settings, sources[settings.data], tokenizer)}"
    if not is_chief():
        while not (folder / TALLY).is_file():
            time.sleep(LOOK)
    elif not (folder / TALLY).is_file():
        rows, tally = make(tokenizer)
        with atomic_folder(folder) as part:
            rows.save_to_disk(str(part))
            (part / TALLY).write_text(json.dumps(tally), "utf-8")
    return load_from_disk(str(folder)), json.loads((folder / TALLY).read_text("utf-8"))


def _key(settings: Cpt | Rpo, data: Path, tokenizer: Path) -> str:
    """What the rows are made from: settings, and the names, sizes and times of the tables and the tokenizer's files."""
    values = settings.model_dump(mode="json", include={"max_length", "packing", "keep_exemplars"})
    tables = sorted(path for suffix in ("parquet", "jsonl") for path in data.rglob(f"*.{suffix}"))
    files = [
        *tables,
        *sorted(path for path in tokenizer.iterdir() if path.name.startswith(("tokenizer", "vocab", "merges"))),
    ]
    seen = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(json.dumps([values, seen], sort_keys=True).encode()).hexdigest()[:16]
