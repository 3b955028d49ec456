"""One graded reply to one question under one condition: the row that evaluate writes and reports read, and its file."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from medllm.errors import DataError
from medllm.exam.tables import table_rows
from medllm.files import atomic_write

if TYPE_CHECKING:  # arrow takes 0.3 s to import, which `medllm check` must not wait for
    import pyarrow as pa

PromptStyle = Literal["plain", "explain", "think"]
Status = Literal[
    "answered", "unparsed", "truncated", "thinking", "too_long", "refused", "run_on", "loop", "wrong_count"
]
STATUSES: tuple[Status, ...] = get_args(Status)
CUT_OFF: frozenset[Status] = frozenset(("truncated", "thinking"))
"""The statuses of a reply that its budget cut off before an answer."""
PROMPTS: tuple[PromptStyle, ...] = ("plain", "explain", "think")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A graded reply; the fields are the columns of the records schema, in order, each with its meaning."""

    question_id: str
    """The question's id within its benchmark."""
    benchmark: str
    """The benchmark's name in the catalogue."""
    model: str
    """The model's displayed name ("base", "cpt", "final", "gpt-4o")."""
    prompt: PromptStyle
    """`plain` asks for the answer alone, `explain` for the explanation first; with `think` the model thinks in a
    channel of its own and then gives the answer alone."""
    status: Status
    """`answered`, or why there is no countable answer: unparsed, truncated, thinking (cut off before the thinking
    ended), too_long (the prompt did not fit), refused (by the server or the model), run_on, loop, wrong_count."""
    correct: bool
    """Whether the answer is among the accepted ones."""
    points: float
    """Points earned: all of the question's points, or none."""
    points_total: float
    """Points the question carries."""
    answer: str | None = None
    """The answer read from the reply, "b,d" or "2.1"; null if none was found."""
    gold: str | None = None
    """The (first) accepted answer, written the same way."""
    how: str | None = None
    """The rule that found the answer."""
    completion: str = ""
    """The reply as generated, without the prompt; of a model that is asked by chat also without its thinking."""
    reasoning: str | None = None
    """What the model thought before its reply, in a channel of its own; it is never read as the answer."""
    finish_reason: str | None = None
    """Why generation ended: "stop", "length", "repetition" (in a loop), "too_long" (the prompt did not fit), "refused",
    or null when unknown."""
    truncated: bool = False
    """Whether the reply was cut off by its token budget, or in a loop."""
    run_on: bool = False
    """Whether the reply continued into an invented next question or turn."""
    loop: bool = False
    """Whether the reply ends in a repetition loop."""
    prohibited: str | None = None
    """The prohibited choices (禁忌肢) that were picked; null when none."""
    year: int | None = None
    """The exam's year, where there is one."""
    section: str | None = None
    """The exam's section ("A" to "F"), where there is one."""
    category: str | None = None
    """The question's subject."""
    group: str | None = None
    """The vignette shared with other questions: the cluster for intervals."""
    required: bool = False
    """Whether the question counts towards the compulsory part."""
    image: bool = False
    """Whether the question needs a picture that the model was not shown."""
    model_revision: str | None = None
    """The commit of the model that replied."""
    template: str | None = None
    """The prompt's wording, "igakuqa" or "paper"."""
    shots: int = 0
    """Number of worked examples before the question."""
    context: str = "original"
    """"original", or "linked" where lost case texts were put back."""
    sample: int = 0
    """0 for the reply that is scored; 1, 2 ... for further samples of the same prompt."""
    seed: int | None = None
    """The seed of sampling; null for greedy decoding."""
    probability: float | None = None
    """The model's own probability of its answer, between 0 and 1, where it was measured."""
    tokens: int | None = None
    """Tokens generated, those of the thinking included."""
    reasoning_tokens: int | None = None
    """Tokens of the thinking among them, where they were counted."""
    prompt_hash: str | None = None
    """SHA-256 of the prompt's text."""
    answer_key: str | None = None
    """Who answered and what was asked, as hashes: a later evaluation takes the reply from here and asks nothing."""
    prompt_tokens: int | None = None
    """Tokens of the prompt, where they were counted."""
    cost: float | None = None
    """US dollars that the reply cost, where the model has a price."""
    choices: int | None = None
    """Number of the question's choices, 0 for a number; null when unknown."""
    trial: bool = False
    """Whether only a part of the exam was asked, as a trial: no number of it is the exam's."""


REQUIRED = ("question_id", "benchmark", "model", "prompt", "status", "correct", "points", "points_total")
"""Columns that a records file must have; an absent other column takes its default."""

COLUMNS = tuple(field.name for field in fields(Record))
"""Every column of the schema, in order."""

_HINTS = get_type_hints(Record)


def _plain(hint: Any) -> tuple[type, tuple[str, ...], bool]:  # noqa: ANN401  (a type is an object of no one class)
    """Return the bare type of a field, its closed set of values (if any), and whether null is allowed."""
    optional = isinstance(hint, UnionType)
    inner = next(arg for arg in get_args(hint) if arg is not type(None)) if optional else hint
    if get_origin(inner) is Literal:
        return str, get_args(inner), optional
    return inner, (), optional


_KINDS = {name: _plain(_HINTS[name]) for name in COLUMNS}


@cache
def schema() -> "pa.Schema":
    """Return the records schema in Arrow's types; docs/evaluation.md lists the columns with their meaning."""
    import pyarrow as pa

    arrow = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
    return pa.schema([pa.field(name, arrow[kind], nullable=null) for name, (kind, _, null) in _KINDS.items()])


def write_records(records: Iterable[Record], path: Path) -> None:
    """Write records as parquet (JSON lines if the name ends in .jsonl), whole or not at all."""
    rows = [{name: getattr(record, name) for name in COLUMNS} for record in records]
    with atomic_write(path) as part:
        if path.suffix == ".jsonl":
            with part.open("w", encoding="utf-8") as out:
                out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        else:
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.Table.from_pylist(rows, schema=schema()), part, compression="zstd")


def read_records(path: Path) -> list[Record]:
    """Read a records file, or every records file of a folder; an error names the row that is not a record, and why."""
    if path.is_dir():
        inner = path / "records" if (path / "records").is_dir() else path
        files = sorted([*inner.glob("*.parquet"), *inner.glob("*.jsonl")])
        if not files:
            raise DataError(
                "exam.no-records",
                f"{path}: holds no records. Give a folder with *.parquet or *.jsonl, or one such file.",
            )
        return [record for file in files for record in read_records(file)]
    if not path.exists():
        raise DataError(
            "exam.no-such-file",
            f"{path} does not exist. Give the records file that `medllm run RECIPE evaluate` wrote.",
        )
    if path.suffix == ".parquet" and (records := _whole_table(path)):
        return records
    return [to_record(row, place) for place, row in table_rows(path)]


def _whole_table(path: Path) -> list[Record] | None:
    """Read a parquet file that matches the schema completely, column by column; return None for any other file.

    This is the fast path for the common case; any other file is read row by row, so that an error can name the row.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        table = table.select([name for name in COLUMNS if name in table.column_names])
        for place, field in enumerate(table.schema):
            wanted = schema().field(field.name)
            if field.type != wanted.type or (table.column(place).null_count and not wanted.nullable):
                return None
        columns = {name: table.column(name).to_pylist() for name in table.column_names}
    except (pa.ArrowInvalid, OSError):
        return None
    fine = all(name in columns for name in REQUIRED) and all(
        set(columns[name]) <= set(allowed) for name, (_, allowed, _) in _KINDS.items() if allowed and name in columns
    )
    numbers = (value for name, (kind, _, _) in _KINDS.items() if kind is float for value in columns.get(name, ()))
    if not fine or any(value is not None and not math.isfinite(value) for value in numbers):
        return None
    if any(_odd(*pair) for pair in set(zip(columns["points"], columns["points_total"], strict=True))):
        return None
    if any(not 0 <= value <= 1 for value in columns.get("probability", ()) if value is not None):
        return None
    names = tuple(columns)
    return [Record(**dict(zip(names, row, strict=True))) for row in zip(*columns.values(), strict=True)]


def to_record(row: Mapping[str, Any], place: str) -> Record:
    """Build one record from a row of the schema; absent optional columns take their default."""
    missing = [name for name in REQUIRED if row.get(name) is None]
    if missing:
        needed = ", ".join(REQUIRED)
        raise DataError(
            "exam.missing-columns",
            f"{place}: lacks {', '.join(missing)}. Needed: {needed}; docs/evaluation.md lists all.",
        )
    values = {name: _value(name, row[name], place) for name in COLUMNS if name in row and row[name] is not None}
    if _odd(values["points"], values["points_total"]):
        raise DataError(
            "exam.wrong-points",
            f"{place}: points is {values['points']:g} of points_total {values['points_total']:g}. Both must be"
            " finite and from 0, and points at most points_total. Correct that row.",
        )
    if not 0 <= values.get("probability", 0) <= 1:
        raise DataError(
            "exam.out-of-range",
            f"{place}: probability is {values['probability']:g}. Give a number from 0 to 1, or leave it out.",
        )
    return Record(**values)


def _odd(points: float, total: float) -> bool:
    """Return whether no question can have given these points."""
    return not (0 <= points <= total < math.inf)


def _value(name: str, value: Any, place: str) -> Any:  # noqa: ANN401  (a cell of any column)
    """Return a cell as its column's type, or raise DataError."""
    kind, allowed, optional = _KINDS[name]
    if isinstance(value, float) and math.isnan(value):
        if optional:
            return None
        raise DataError("exam.nan", f"{place}: {name} is NaN. Give a value, or leave the row out.")
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise DataError(
            "exam.wrong-type", f"{place}: {name} is {value!r}, which is not of type {kind.__name__}. Correct that cell."
        )
    if allowed and value not in allowed:
        raise DataError("exam.unknown-value", f"{place}: {name} is {value!r}. It can be {', '.join(allowed)}.")
    return value
