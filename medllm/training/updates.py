"""The rows of each update and of each evaluation: the same for any number of devices, and none twice."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset
from transformers import TrainerCallback
from transformers.trainer_utils import EvalLoopOutput

from medllm.errors import DataError, TrainingError
from medllm.recipe.settings import Cpt, Grpo, Rpo, Sft

SHARE = "share"
"""Column of a row: its part of the mean over the rows of its update."""


@dataclass(frozen=True)
class RowPosition:
    """One row of a micro-batch: its number in the data, or None where a device has no row left in this update."""

    row: int | None
    rows_in_update: int


@dataclass(frozen=True)
class MixedIn:
    """Rows of another kind that each update takes beside its own, in an order of their own."""

    rows: Any
    """A datasets.Dataset."""
    per_update: int


class UpdateBatches(Sampler[list[RowPosition]]):  # type: ignore[misc]
    """The micro-batches of one device, epoch by epoch.

    An epoch is one random order of all rows, the same on every device. An update takes the next `batch_size` rows of
    it, the last one those that are left. The rows of an update are dealt out to the devices in pieces of `per_device`.
    Where the last update has fewer rows than devices, a device gets an empty place instead of a row for the second
    time, so that all devices take part in the same exchanges and no row counts twice. `groups` names the group of each
    row, whose rows then stay together: the order is one of groups.

    With `mixed` each update also takes so many rows of another table, numbered behind the own ones, in random orders
    that go on over the epochs; the last update of an epoch takes them in proportion.
    """

    def __init__(
        self,
        rows: int,
        *,
        batch_size: int,
        per_device: int,
        rank: int,
        devices: int,
        seed: int,
        groups: Sequence[int] | None = None,
        mixed: MixedIn | None = None,
    ) -> None:
        self.rows = rows
        self.others, self.mixed = (len(mixed.rows), mixed.per_update) if mixed else (0, 0)
        self.groups: dict[int, list[int]] = {}
        for row, group in enumerate(groups or range(rows)):
            self.groups.setdefault(group, []).append(row)
        self.batch_size = batch_size
        self.per_device = per_device
        self.rank = rank
        self.devices = devices
        self.seed = seed
        self.epoch = 0
        self._orders: dict[int, list[int]] = {}

    @property
    def batch_sampler(self) -> UpdateBatches:
        """Itself: transformers sets the epoch on the sampler inside the loader's."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of this epoch."""
        self.epoch = epoch

    def order(self) -> list[int]:
        """The rows of this epoch, in the order that accelerate's sampler gives for the same seed."""
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        groups = list(self.groups.values())
        drawn: list[int] = torch.randperm(len(groups), generator=generator).tolist()
        return [row for number in drawn for row in groups[number]]

    def __len__(self) -> int:
        whole, left = divmod(self.rows, self.batch_size)
        return whole * self._steps(self.batch_size + self.mixed) + self._steps(left + self._mixed_with(left))

    def __iter__(self) -> Iterator[list[RowPosition]]:
        order = self.order()
        taken = self.epoch * sum(self._mixed_with(len(rows)) for rows in self._updates(order))
        for own in self._updates(order):
            more = self._mixed_with(len(own))
            update = [*own, *(self.rows + self._other(place) for place in range(taken, taken + more))]
            taken += more
            pieces = [update[at : at + self.per_device] for at in range(0, len(update), self.per_device)]
            for step in range(self._steps(len(update))):
                number = step * self.devices + self.rank
                mine: Sequence[int | None] = pieces[number] if number < len(pieces) else [None]
                yield [RowPosition(row, len(update)) for row in mine]

    def _updates(self, order: list[int]) -> list[list[int]]:
        return [order[begin : begin + self.batch_size] for begin in range(0, self.rows, self.batch_size)]

    def _mixed_with(self, rows: int) -> int:
        """How many rows of the other table an update with so many own ones takes."""
        return round(rows * self.mixed / self.batch_size)

    def _other(self, place: int) -> int:
        """The row at a place in the stream of the other table's orders."""
        cycle, at = divmod(place, self.others)
        if cycle not in self._orders:
            generator = torch.Generator().manual_seed(self.seed + 1_000_003 * (cycle + 1))
            self._orders = {cycle: torch.randperm(self.others, generator=generator).tolist()}
        return self._orders[cycle][at]

    def _steps(self, rows: int) -> int:
        return -(-rows // (self.per_device * self.devices))


class PositionedRows(TorchDataset[dict[str, Any]]):  # type: ignore[misc]
    """The rows of a table by their places, each with its share; an empty place gets a row that teaches nothing."""

    def __init__(self, rows: Any, empty: dict[str, Any], others: Any = None) -> None:  # noqa: ANN401  Datasets
        self.rows = rows
        self.others = others
        self.empty = empty

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: RowPosition) -> dict[str, Any]:
        if place.row is None:
            return {**self.empty, SHARE: 0.0}
        own = place.row < len(self.rows)
        row = self.rows[place.row] if own else self.others[place.row - len(self.rows)]
        return {**row, SHARE: 1 / place.rows_in_update}


class Updates:
    """What both trainers change in how transformers' Trainer goes through the data; put before it among the bases."""

    empty: dict[str, Any]
    """A row without anything to learn, for a device that has none left in an update."""
    groups: Sequence[int] | None = None
    """The group of each row, where rows of one group are to be learnt together."""
    mixed: MixedIn | None = None
    """Rows that join each update."""
    args: Any
    state: Any
    control: Any
    model: Any
    train_dataset: Any
    eval_dataset: Any
    data_collator: Any
    accelerator: Any
    keeps_best: KeepBest

    def get_train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """This device's micro-batches; batches go to the device when they are used."""
        args = self.args
        rows = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
        own = rows - (self.mixed.per_update if self.mixed else 0)
        return self._loader(self.train_dataset, own, self.groups, self.mixed)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[dict[str, Any]]:  # noqa: ANN401  our own rows
        """This device's micro-batches of the rows that are held out, each row once."""
        return self._loader(self.eval_dataset, len(self.eval_dataset), None)

    def _loader(
        self,
        table: Any,  # noqa: ANN401  a datasets.Dataset
        batch_size: int,
        groups: Sequence[int] | None,
        mixed: MixedIn | None = None,
    ) -> DataLoader[dict[str, Any]]:
        args = self.args
        batches = UpdateBatches(
            len(table),
            batch_size=batch_size,
            per_device=args.per_device_train_batch_size,
            rank=args.process_index,
            devices=args.world_size,
            seed=args.seed,
            groups=groups,
            mixed=mixed,
        )
        return DataLoader(
            PositionedRows(table, self.empty, mixed and mixed.rows),
            batch_sampler=batches,
            collate_fn=self.data_collator,
            pin_memory=args.dataloader_pin_memory,
            generator=torch.Generator(),  # of its own: the draws of dropout must not depend on how data is read
        )

    def eval_sums(self, model: Any, inputs: dict[str, Any]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:  # noqa: ANN401
        """Sums of a batch that become the figures of an evaluation, `loss` among them, and what they are divided by."""
        raise NotImplementedError

    def evaluation_loop(
        self,
        dataloader: DataLoader[dict[str, Any]],
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Compute means over what is held out, however it is split over devices and batches.

        transformers' own loop averages batches, and counts some rows twice where they do not divide over the devices.
        """
        total: torch.Tensor = torch.zeros(())
        names: list[str] = []
        self.model.eval()
        for batch in dataloader:
            inputs = self._prepare_inputs(batch)  # type: ignore[attr-defined]
            with torch.no_grad(), self.compute_loss_context_manager():  # type: ignore[attr-defined]
                sums, count = self.eval_sums(self.model, inputs)
            names = list(sums)
            total = total.to(count.device) + torch.stack([*sums.values(), count]).double()
        self.model.train()
        *summed, whole = self.accelerator.reduce(total, "sum").tolist()
        figures = {
            f"{metric_key_prefix}_{name}": value / max(whole, 1) for name, value in zip(names, summed, strict=True)
        }
        return EvalLoopOutput(None, None, figures, len(self.eval_dataset))

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:  # noqa: ANN401
        """Write a checkpoint of each evaluation that is the best so far, whenever others are written.

        transformers notes that checkpoint only where a process sees its folder before the weights are in it. Sharded
        weights make the folder late, so processes came to load, and to delete, different checkpoints.
        """
        best: bool = super()._determine_best_metric(metrics, trial)  # type: ignore[misc]
        if best and self.args.load_best_model_at_end:
            self.control.should_save = True
            self.state.best_model_checkpoint = str(self.keeps_best.folder(self.state.global_step))
        return best

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  what Trainer hands on
        """Take no further update when the last one is already in the checkpoint.

        transformers looks for the end only after an update, so a run that was killed after its last checkpoint took
        one too many where `max_steps`, a part of an epoch, or an early stop is the end.
        """
        if self.state.global_step >= self.state.max_steps or self.control.should_training_stop:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)  # type: ignore[misc]


class Epochs(TrainerCallback):  # type: ignore[misc]
    """Counts epochs by rows: transformers counts micro-batches, of which the last update may have fewer."""

    def __init__(self, trainer: Any, batch_size: int) -> None:  # noqa: ANN401  one of our trainers
        self.trainer = trainer
        self.batch_size = batch_size

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Set how many times the data has been gone through."""
        rows = len(self.trainer.train_dataset)
        epochs, updates = divmod(state.global_step, -(-rows // self.batch_size))
        state.epoch = epochs + updates * self.batch_size / rows


def hold_out(groups: Sequence[str], size: float, seed: int) -> list[bool]:
    """Choose rows for the evaluation: whole groups, in an order that their names and the seed decide, until enough.

    `size` is a share of the rows or their number. Raises DataError where nothing is left to train on.

    >>> hold_out(["a", "b", "a", "c"], 2, seed=0)
    [True, True, True, False]
    """
    wanted = size if size >= 1 else math.ceil(size * len(groups))
    counts = Counter(groups)
    chosen: set[str] = set()
    rows = 0
    for group in sorted(
        counts, key=lambda name: hashlib.sha256(f"{seed} {name}".encode("utf-8", "surrogatepass")).digest()
    ):
        if rows >= wanted:
            break
        chosen.add(group)
        rows += counts[group]
    if len(chosen) == len(counts):
        raise DataError(
            "training.all-held-out",
            f"`eval_size` {size:g} holds out all {len(groups)} rows ({len(counts)} of them differ), so none is left to "
            "train on. Lower `eval_size`, or set `eval_strategy: no`.",
        )
    return [group in chosen for group in groups]


def own_rows(settings: Cpt | Sft | Rpo | Grpo) -> int:
    """How many rows of an update are of the training's own data; the others are mixed in."""
    return settings.total_batch_size - (settings.mixed_rows if isinstance(settings, Rpo) else 0)


def evaluation_arguments(settings: Cpt | Sft | Rpo | Grpo, rows: int) -> dict[str, Any]:
    """The arguments of TRL's trainers for an evaluation, of a training on so many rows; none without one."""
    if settings.eval_strategy == "no" or isinstance(settings, Grpo):
        return {}
    name = settings.metric_for_best_model
    chooses = settings.load_best_model_at_end or settings.early_stopping_patience
    return {
        "eval_strategy": "steps",
        "eval_steps": settings.eval_steps or -(-rows // own_rows(settings)),
        **(
            {"metric_for_best_model": f"eval_{name}", "greater_is_better": name.startswith("rewards")}
            if chooses
            else {}
        ),
    }


class KeepBest(TrainerCallback):  # type: ignore[misc]
    """Ends a training whose evaluations get no better, and finds the best checkpoint again after a restart.

    The evaluations since the best are counted from the trainer's log, which each checkpoint holds.
    """

    def __init__(self, patience: int | None, checkpoints: Path) -> None:
        self.patience = patience
        self.checkpoints = checkpoints
        self.stopped = False

    def folder(self, step: int) -> Path:
        """Return where the checkpoint after so many updates is written."""
        return self.checkpoints / f"checkpoint-{step}"

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Look for the best checkpoint where the training is now, and end at once where it had ended."""
        if args.load_best_model_at_end and state.best_global_step:
            best = self.folder(state.best_global_step)
            if not best.is_dir():
                raise TrainingError(
                    "training.best-checkpoint-missing",
                    f"{best}, the best checkpoint of this run, is missing, so the run cannot continue. Put it back, or "
                    f"remove {self.checkpoints} to start from the beginning.",
                )
            state.best_model_checkpoint = str(best)
        if state.global_step:
            self._end_without_gain(args, state, control)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """End the training when the evaluations since the best are as many as the recipe waits for."""
        self._end_without_gain(args, state, control)

    def _end_without_gain(self, args: Any, state: Any, control: Any) -> None:  # noqa: ANN401
        if self.patience is None:
            return
        sign = 1 if args.greater_is_better else -1
        values = [
            sign * line[args.metric_for_best_model] for line in state.log_history if args.metric_for_best_model in line
        ]
        if values and len(values) - 1 - values.index(max(values)) >= self.patience:
            control.should_training_stop = self.stopped = True


def add_evaluation(trainer: Any, settings: Cpt | Sft | Rpo | Grpo, work: Path) -> None:  # noqa: ANN401  one of our trainers
    """Let a trainer that has rows to evaluate keep its best weights, or end early, as the recipe has it."""
    if settings.eval_strategy == "no":
        return
    # transformers accepts this only where checkpoints are written at evaluations alone; ours are written at others too.
    trainer.args.load_best_model_at_end = settings.load_best_model_at_end
    trainer.keeps_best = KeepBest(settings.early_stopping_patience, work / "checkpoints")
    trainer.add_callback(trainer.keeps_best)


def evaluation_facts(trainer: Any) -> dict[str, Any]:  # noqa: ANN401  one of our trainers
    """What the evaluations found, for the card; nothing without one."""
    lines = [line for line in trainer.state.log_history if "eval_loss" in line]
    if not lines:
        return {}
    kept = trainer.state.best_global_step if trainer.args.load_best_model_at_end else trainer.state.global_step
    taken = {line["step"]: {name: value for name, value in line.items() if is_figure(name)} for line in lines}
    return {"evaluations": taken, "kept_step": kept, "stopped_early": trainer.keeps_best.stopped}


def is_figure(name: str) -> bool:
    """Whether a name in an evaluation's log is a result, and not how long it took."""
    return name.startswith("eval_") and not name.endswith(("_runtime", "_per_second"))
