"""The least that each stage's output holds, checked before its push: nothing empty or broken replaces what is good."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medllm.errors import DataError, MedllmError, ModelError
from medllm.recipe.reference import Stage

Facts = dict[str, Any]


def refuse_empty(stage: Stage, out: Path) -> None:
    """Raise where an output is not worth publishing; the folder stays for a look, and the Hub stays as it was."""
    check = CHECKS.get(stage)
    if check is not None:
        check(out, json.loads((out / "facts.json").read_text(encoding="utf-8")))


def _rows(out: Path, pattern: str) -> int:
    """Count the rows of Parquet files by their footers; a broken file is an error that names it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    count = 0
    for path in sorted(out.glob(pattern)):
        try:
            count += int(pq.read_metadata(path).num_rows)
        except (pa.ArrowInvalid, OSError) as fault:
            raise DataError("stage.broken-table", f"{path}: is not a whole Parquet file ({fault}).") from fault
    return count


def _needs_rows(stage: Stage, pattern: str, what: str) -> Callable[[Path, Facts], None]:
    def check(out: Path, facts: Facts) -> None:
        if not _rows(out, pattern):
            raise MedllmError(
                "stage.empty-output",
                f"{stage}: the output in {out} holds no {what} ({pattern}), so it is not pushed. Nothing on the Hub "
                "was changed. See why the stage found none, remove that folder and run again.",
            )

    return check


def _check_adapter(out: Path, facts: Facts) -> None:
    """An adapter is whole and was trained: its factors B begin as zero, and training changes them."""
    from medllm.weights.adapter import Adapter
    from medllm.weights.checkpoint import read_bytes

    adapter = Adapter(out)
    changed = any(any(read_bytes(adapter.path, wide)) for _, wide in adapter.modules.values())
    if not (changed or adapter.rows or adapter.replaced):
        raise ModelError(
            "stage.untrained-adapter",
            f"{out}: every change in the adapter is zero, so it is the base itself and is not pushed. Train for more "
            "steps, or with a higher learning_rate (the first update of a warm-up has none: see `warmup_ratio`).",
        )


def _check_model(out: Path, facts: Facts) -> None:
    """A merged model can be loaded, by the function that loading uses."""
    from medllm.weights.loadable import model_errors

    for error in model_errors(out):
        raise error


def _check_results(out: Path, facts: Facts) -> None:
    """Each model of an evaluation has at least one record."""
    _needs_rows("evaluate", "records/*.parquet", "answer")(out, facts)
    empty = [path.stem for path in sorted(out.glob("records/*.parquet")) if not _rows(path.parent, path.name)]
    if empty:
        raise MedllmError(
            "stage.empty-output",
            f"evaluate: {out} has no answers of {', '.join(empty)}, so it is not pushed. Remove that folder.",
        )


CHECKS: dict[Stage, Callable[[Path, Facts], None]] = {
    "corpus": _needs_rows("corpus", "corpus/*.parquet", "document"),
    "cpt": _check_adapter,
    "preferences": _needs_rows("preferences", "data/*.parquet", "pair"),
    "rpo": _check_adapter,
    "merge": _check_model,
    "evaluate": _check_results,
    "space": _needs_rows("space", "results/records/*.parquet", "answer"),
}
"""One check for each stage."""
