"""A folder of parquet or JSONL files as one table; what is empty or broken is named before a model is loaded."""

from pathlib import Path

import pyarrow.parquet as pq
from datasets import Dataset
from datasets.exceptions import DatasetGenerationError
from pyarrow import ArrowInvalid

from medllm.errors import DataError
from medllm.weights.spent import disk_is_full, memory_is_full


def read_table(root: Path, cache: Path, what: str) -> Dataset:
    """Read every parquet file, or where there is none every JSONL file, below a folder; `what` a row of it holds."""
    for suffix, read in ((".parquet", Dataset.from_parquet), (".jsonl", Dataset.from_json)):
        files = sorted(root.rglob(f"*{suffix}"))
        # datasets stumbles over a file without rows, which is what a stage leaves that found nothing.
        filled = [str(path) for path in files if _has_rows(path)]
        if not files:
            continue
        if not filled:
            raise DataError(f"{root}: holds no {what}. The facts.json of the stage that made it says why.")
        try:
            return read(filled, cache_dir=str(cache))
        except DatasetGenerationError as fault:
            if disk_is_full(fault) or memory_is_full(fault):
                raise
            told = str(fault.__cause__ or fault).splitlines()[0]
            raise DataError(f"{root}: cannot be read as one table: {told}. Mend or take away that file.") from fault
    raise DataError(f"{root}: no *.parquet or *.jsonl file with {what}s. Give a folder that holds one.")


def _has_rows(path: Path) -> bool:
    if path.suffix != ".parquet":
        return path.stat().st_size > 0
    try:
        return bool(pq.read_metadata(path).num_rows)
    except ArrowInvalid as fault:
        raise DataError(f"{path}: no parquet file: {str(fault).splitlines()[0]}. Download or make it again.") from fault
