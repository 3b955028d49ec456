"""What a training by rewards can be seen to do: rewards, their parts and what became of replies, update by update."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from transformers import TrainerCallback

from medllm.errors import TrainingError
from medllm.exam.record import STATUSES
from medllm.recipe.grpo import PARTS, Grpo
from medllm.training.callbacks import keep_lines
from medllm.wording import describe_counts

STEPS, SAMPLES = "rollouts.jsonl", "completions.jsonl"
"""The files below `training` that grow with the training."""
SAMPLED = 4
"""Completions that are kept of an update: the best, the worst, and two between them by rank."""
ON_CARD = 8
"""Lines of the card's table."""
SAMPLES_ON_CARD = 6
SHOWN = 400
"""Characters of a completion on the card."""
Row = dict[str, Any]


def column_of(part: str) -> str:
    """Name the column of a reward's part as TRL's log does.

    >>> column_of("form")
    'rewards/form'
    """
    return f"rewards/{part}"


class RolloutWatch(TrainerCallback):  # type: ignore[misc]
    """Writes down each update's rewards and some completions, and stops a training whose rewards never differ.

    Args:
        settings: The training.
        folder: Where the two files of lines grow; a resumed training drops the lines of updates it takes once more.
        chief: Whether this process writes.
    """

    def __init__(self, settings: Grpo, folder: Path, *, chief: bool) -> None:
        self.settings = settings
        self.folder = folder
        self.chief = chief
        self.differed = False
        self.seen: Counter[str] = Counter()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Drop the lines of updates that are to be taken once more, and recall whether rewards have differed."""
        self.differed = state.global_step >= self.settings.constant_reward_steps
        if self.chief:
            self.folder.mkdir(parents=True, exist_ok=True)
            for name in (STEPS, SAMPLES):
                keep_lines(self.folder / name, state.global_step)
        if (self.folder / STEPS).is_file():
            kept = [row for row in read_lines(self.folder / STEPS) if row["step"] <= state.global_step]
            self.differed = self.differed or any(row["questions_with_equal_rewards"] < 1 for row in kept)
            for row in kept:
                self.seen.update({status: row[status] for status in STATUSES})

    def record(self, step: int, rows: Sequence[Row]) -> None:
        """Write the completions of one update (of all devices, each row a completion) and compare their rewards.

        Raises TrainingError where no question of the first updates had completions of different rewards.
        """
        line = summary_of(step, rows)
        self.seen.update({status: line[status] for status in STATUSES})
        self.differed = self.differed or line["questions_with_equal_rewards"] < 1
        if self.chief:
            _append(self.folder / STEPS, [line])
            if step == 1 or step % self.settings.logging_steps == 0:
                _append(self.folder / SAMPLES, [{"step": step, **row} for row in _samples(rows)])
        if not self.differed and step >= self.settings.constant_reward_steps:
            counts = describe_counts(Counter({name: count for name, count in self.seen.items() if count}))
            raise TrainingError(
                "training.constant-reward",
                f"grpo: in {step} updates all completions of each question had the same reward, so nothing can be "
                f"learnt. Of {self.seen.total():,} completions: {counts}. Raise `max_completion_length` if they are "
                "cut off, train the model to answer first (`rpo`, `sft`), raise `temperature` or `num_generations`, or "
                "take other questions.",
            )


def summary_of(step: int, rows: Sequence[Row]) -> Row:
    """Sum up the completions of an update: means of reward and parts, tokens, counts of what became of them.

    `reward_std` is the mean over questions of the deviation within one (of `n - 1`, as TRL computes it).
    """
    groups: dict[str, list[float]] = {}
    for row in rows:
        groups.setdefault(row["question"], []).append(row["reward"])
    spreads = [_deviation(rewards) for rewards in groups.values()]
    statuses = Counter(row["status"] for row in rows)
    return {
        "step": step,
        "completions": len(rows),
        "reward": _mean([row["reward"] for row in rows]),
        "reward_std": _mean(spreads),
        "questions_with_equal_rewards": _mean([float(spread < 1e-6) for spread in spreads]),
        **{name: _mean([row[name] for row in rows]) for name in map(column_of, PARTS)},
        "tokens": _mean([float(row["tokens"]) for row in rows]),
        "cut_off": _mean([float(row["finish_reason"] != "stop") for row in rows]),
        **{status: statuses[status] for status in STATUSES},
    }


def _samples(rows: Sequence[Row]) -> list[Row]:
    """Choose the best, the worst and two in between: what games the rewards is among the best."""
    ranked = sorted(rows, key=lambda row: -row["reward"])
    places = sorted({round(place * (len(ranked) - 1) / (SAMPLED - 1)) for place in range(SAMPLED)})
    return [ranked[place] for place in places]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _deviation(values: Sequence[float]) -> float:
    middle = _mean(values)
    return float((sum((value - middle) ** 2 for value in values) / max(1, len(values) - 1)) ** 0.5)


def _append(path: Path, rows: Sequence[Row]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_lines(path: Path) -> list[Row]:
    """Read a file of JSON lines."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def write_tables(folder: Path, out: Path) -> tuple[list[Row], list[Row]]:
    """Write both files of lines as Parquet below `out`; return their rows, updates first."""
    rows = [read_lines(folder / name) for name in (STEPS, SAMPLES)]
    out.mkdir(parents=True, exist_ok=True)
    for name, of in zip(("updates", "completions"), rows, strict=True):
        pq.write_table(pa.Table.from_pylist(of), out / f"{name}.parquet", compression="zstd")
        (folder / (STEPS if name == "updates" else SAMPLES)).unlink()
    return rows[0], rows[1]


def watch_facts(updates: Sequence[Row], samples: Sequence[Row], parts: Iterable[str]) -> dict[str, Any]:
    """Choose what a card shows: some updates in even steps, and completions of the first and the last ones kept."""
    last = len(updates) - 1
    places = sorted({round(place * last / (ON_CARD - 1)) for place in range(ON_CARD)})
    steps = sorted({row["step"] for row in samples})
    half = SAMPLES_ON_CARD // 2
    ends = [row for row in samples if row["step"] == steps[0]][:half]
    ends += [row for row in samples if len(steps) > 1 and row["step"] == steps[-1]][:half]
    shown = ("step", "question", "reward", "status", "answer", "gold", "completion")
    return {
        "first": updates[0],
        "last": updates[-1],
        "table": [updates[place] for place in places],
        "parts": list(parts),
        "samples": [{name: _short(row[name]) for name in shown} for row in ends],
        "completions": sum(row["completions"] for row in updates),
    }


def _short(value: Any) -> Any:  # noqa: ANN401  a value of a row
    return value[:SHOWN] + "…" if isinstance(value, str) and len(value) > SHOWN else value
