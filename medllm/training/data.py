"""Tables of a training's data, checked before a model is loaded; their tokens, made once before processes start."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from datasets import Dataset, DatasetDict, Features, Value, concatenate_datasets, load_from_disk
from datasets.exceptions import DatasetGenerationError
from pyarrow import ArrowInvalid, types

from medllm.errors import DataError, disk_is_full, memory_is_full
from medllm.files import atomic_folder
from medllm.recipe.settings import Cpt, Instructions, Rpo, Sft
from medllm.training.devices import is_chief, split_batch, world
from medllm.training.load import tokenizer_folder

TALLY = "tally.json"
LOOK = 0.2
"""Seconds between two looks for data that another process makes."""


def prepared(
    settings: Cpt | Sft | Rpo,
    sources: dict[str, Path],
    work: Path,
    make: Callable[[Path], tuple[Dataset | DatasetDict, dict[str, Any]]],
    name: str = "tokens",
) -> tuple[Dataset, Dataset | None, dict[str, Any]]:
    """The rows to train on, those held out if any, and their account, from the work folder where they are already made.

    The first process makes them (or the one that starts the others), however long that takes; the others look for the
    finished folder instead of waiting in an exchange, which would give up after some minutes. `make` is given the
    tokenizer's folder; `name` divides the rows of one training that are made apart. Raises TrainingError before any
    work where the batch cannot be split.
    """
    split_batch(settings.total_batch_size, settings.per_device_train_batch_size, world())
    tokenizer = tokenizer_folder(settings, sources)
    folder = work / "cache" / f"{name}-{_key(settings, sources, tokenizer)}"
    if not is_chief():
        while not (folder / TALLY).is_file():
            time.sleep(LOOK)
    elif not (folder / TALLY).is_file():
        rows, tally = make(tokenizer)
        with atomic_folder(folder) as part:
            rows.save_to_disk(str(part))
            (part / TALLY).write_text(json.dumps(tally), "utf-8")
    made = load_from_disk(str(folder))
    parts = made if isinstance(made, DatasetDict) else {"train": made}
    return parts["train"], parts.get("eval"), json.loads((folder / TALLY).read_text("utf-8"))


_OF_ROWS = {
    "max_length",
    "packing",
    "keep_exemplars",
    "format",
    "system_prompt",
    "chat_template_kwargs",
    "chat_template",
}
"""Settings of a training that decide its tokens."""
_OF_HELD_OUT = {"eval_strategy", "eval_size", "seed"}
"""Settings that decide which rows are held out, where some are."""
_DECIDING = ("tokenizer", "vocab", "merges", "chat_template")
"""How the names of the files begin that decide a model's tokens."""


def _key(settings: Cpt | Sft | Rpo, sources: dict[str, Path], tokenizer: Path) -> str:
    """What the rows are made from: settings, and the names, sizes and times of the tables and the tokenizer's files."""
    deciding = _OF_ROWS | (_OF_HELD_OUT if settings.eval_strategy != "no" else set())
    deciding |= set(Instructions.model_fields) if isinstance(settings, Sft) else {"mix"}
    values = settings.model_dump(mode="json", include=deciding)
    data = _read_by(settings, sources) if isinstance(settings, Sft) else [sources[settings.data]]
    data += _read_by(settings.mix, sources) if isinstance(settings, Rpo) and settings.mix else []
    kinds = ("parquet", "jsonl", "ndjson")
    tables = sorted(path for folder in data for kind in kinds for path in folder.rglob(f"*.{kind}"))
    files = [
        *tables,
        *sorted(path for path in tokenizer.iterdir() if path.name.startswith(_DECIDING)),
    ]
    seen = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(json.dumps([values, seen], sort_keys=True).encode()).hexdigest()[:16]


def _read_by(block: Instructions, sources: dict[str, Path]) -> list[Path]:
    """List the folders that decide which conversations are admitted: the sources, the exams, what was withdrawn."""
    named = [*(source.source for source in block.data), *(block.held_out or ()), "forgotten"]
    return [sources[name] for name in named if name in sources]


LINES = (".jsonl", ".ndjson")
OTHER_TABLES = (".csv", ".tsv", ".arrow", ".xlsx", ".gz", ".zst", ".bz2", ".xz", ".zip")
"""Endings of files that hold rows and are not read here."""


def read_table(
    root: Path, cache: Path, what: str, columns: Sequence[str], mend: str, *, talks: Sequence[str] = ()
) -> Dataset:
    """Read these columns of every parquet and JSONL file below a folder, in the order of their names, as texts.

    The columns `talks` hold conversations: lists of messages, or values for them. They are read as JSON; a file that
    lacks one of them, unless it is also among `columns`, has an empty text in its place.

    Other columns do not matter. `what` a row holds and the `mend` for a missing column go into messages. Raises
    DataError, with file and row, for a file that cannot be read, a column that is missing, or a value that is no text.
    """
    files = sorted(path for path in root.rglob("*") if path.is_file() and cache not in path.parents)
    rows = [path for path in files if path.suffix in (".parquet", *LINES)]
    unread = [path for path in files if path.suffix in OTHER_TABLES]
    if not rows:
        raise DataError(
            "training.no-table",
            f"{root}: there is no *.parquet or *.jsonl file with {what}s. Give a folder that holds one.",
        )
    if unread:
        raise DataError(
            "training.unread-format",
            f"{unread[0]}: training reads only *.parquet and *.jsonl. Convert the file, or remove it from the folder.",
        )
    # datasets stumbles over a file without rows, which is what a stage leaves that found nothing.
    filled = [path for path in rows if _has_rows(path)]
    if not filled:
        raise DataError(
            "training.no-rows",
            f"{root}: the files hold no {what}. The facts.json of the stage that made them gives the reason.",
        )
    for path in filled:
        there = _columns(path)
        if missing := [column for column in columns if column not in there]:
            place = root if len(filled) == 1 else path
            names = ", ".join(f"`{column}`" for column in missing)
            raise DataError(
                "training.missing-column", f"{place}: there is no column {names}. There is: {', '.join(there)}. {mend}"
            )
    try:
        read = list(dict.fromkeys([*columns, *talks]))
        return concatenate_datasets([_read(path, cache, read, frozenset(talks)) for path in filled])
    except DatasetGenerationError as fault:
        if disk_is_full(fault) or memory_is_full(fault):
            raise
        if isinstance(fault.__cause__, DataError):
            raise fault.__cause__ from None
        reason = str(fault.__cause__ or fault).splitlines()[0]
        raise DataError(
            "training.broken-table",
            f"{root}: the files cannot be read as one table: {reason}. Mend or remove the file with that fault.",
        ) from fault


def holds_conversations(root: Path, column: str) -> bool:
    """Return whether a column of the tables below a folder holds lists of messages instead of texts."""
    for path in sorted(path for path in root.rglob("*") if path.suffix in (".parquet", *LINES)):
        if not _has_rows(path):
            continue
        if path.suffix == ".parquet":
            schema = pq.read_schema(path)
            return column in schema.names and types.is_list(schema.field(column).type)
        return isinstance(next((row.get(column) for _, row in table_rows(path)), None), list)
    return False


def messages_of(text: str, place: str, column: str) -> list[dict[str, str]]:
    """Return the messages of a conversation that `read_table` has read from a column."""
    messages = json.loads(text or "null")
    if not isinstance(messages, list) or not messages or not all(_is_message(message) for message in messages):
        raise DataError(
            "training.not-messages",
            f"{place}: `{column}` holds no messages. Write a list of `{{role, content}}`, both texts.",
        )
    return [{name: value for name, value in message.items() if value is not None} for message in messages]


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(name), str) for name in ("role", "content"))


def _has_rows(path: Path) -> bool:
    if path.suffix != ".parquet":
        return path.stat().st_size > 0
    try:
        return bool(pq.read_metadata(path).num_rows)
    except ArrowInvalid as fault:
        raise DataError(
            "training.broken-table",
            f"{path}: is not a Parquet file: {str(fault).splitlines()[0]}. Download or make it again.",
        ) from fault


def _columns(path: Path) -> list[str]:
    """The columns of a file; of JSONL those of its first row."""
    if path.suffix == ".parquet":
        return list(pq.read_schema(path).names)
    return next((list(row) for _, row in table_rows(path)), [])


def _read(path: Path, cache: Path, columns: list[str], talks: frozenset[str]) -> Dataset:
    features = Features({column: Value("string") for column in columns})
    if path.suffix in LINES or talks:
        stat = path.stat()
        given = {"path": str(path), "columns": tuple(columns), "talks": tuple(sorted(talks))}
        given["version"] = f"{stat.st_size} {stat.st_mtime_ns}"
        return Dataset.from_generator(_texts, features=features, cache_dir=str(cache), gen_kwargs=given)
    schema = pq.read_schema(path)
    for column in columns:
        kind = schema.field(column).type
        if not (types.is_string(kind) or types.is_large_string(kind)):
            raise DataError(
                "training.not-text",
                f"{path}: `{column}` holds {kind}, not text. Write the text that the model is to learn into "
                f"`{column}`.",
            )
    table = Dataset.from_parquet(str(path), columns=columns, cache_dir=str(cache))
    for column in columns:
        if table.data.column(column).null_count:
            row = table.data.column(column).is_null().index(True).as_py() + 1
            raise DataError("training.empty-value", f"{path} row {row}: `{column}` is empty. Remove that row.")
    return table if table.features == features else table.cast(features)


def _texts(path: str, columns: tuple[str, ...], talks: tuple[str, ...], version: str) -> Iterator[dict[str, str]]:
    """Rows of a file with these columns alone; `version` makes an edited file another one for the cache."""
    for place, row in table_rows(Path(path)):
        texts: dict[str, str] = {}
        for column in columns:
            value = row.get(column)
            if column in talks:
                texts[column] = "" if value is None else json.dumps(value, ensure_ascii=False)
                continue
            if value is None:
                raise DataError(
                    "training.empty-value",
                    f"{place}: `{column}` is {'empty' if column in row else 'missing'}. Remove that row.",
                )
            if not isinstance(value, str):
                raise DataError(
                    "training.not-text",
                    f"{place}: `{column}` holds {type(value).__name__}, not text. Write the text that the model is to "
                    f"learn into `{column}`.",
                )
            texts[column] = value
        yield texts


def table_rows(path: Path) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield place and values of each row of a Parquet or JSONL file; the place ends in the row's or line's number.

    Raises DataError for a line that is no JSON object.
    """
    if path.suffix == ".parquet":
        rows = (row for batch in pq.ParquetFile(path).iter_batches(1000) for row in batch.to_pylist())
        yield from ((f"{path} row {number}", row) for number, row in enumerate(rows, 1))
        return
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            place = f"{path} line {number}"
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig"))
            except (ValueError, RecursionError) as fault:
                raise DataError(
                    "training.broken-table", f"{place}: the line is not JSON ({fault}). Mend that line."
                ) from None
            if not isinstance(row, dict):
                raise DataError(
                    "training.broken-table", f"{place}: the line is not a JSON object. Write one object on each line."
                )
            yield place, row
