"""How rows become updates: the same rows for any number of devices and any split, and none of them twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import TrainerCallback

SHARE = "share"
"""Column of a row: its part of the mean over the rows of its update."""


@dataclass(frozen=True)
class RowPosition:
    """One row of a micro-batch: its number in the data, or None where a device has no row left in this update."""

    row: int | None
    rows_in_update: int


class UpdateBatches(Sampler[list[RowPosition]]):  # type: ignore[misc]
    """The micro-batches of one device, epoch by epoch.

    An epoch is one random order of all rows, the same on every device. An update takes the next `batch_size` rows of
    it, the last one those that are left. The rows of an update are dealt out to the devices in pieces of `per_device`.
    Where the last update has fewer rows than devices, a device gets an empty place instead of a row for the second
    time, so that all devices take part in the same exchanges and no row counts twice. `groups` names the group of each
    row, whose rows then stay together: the order is one of groups.
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
    ) -> None:
        self.rows = rows
        self.groups: dict[int, list[int]] = {}
        for row, group in enumerate(groups or range(rows)):
            self.groups.setdefault(group, []).append(row)
        self.batch_size = batch_size
        self.per_device = per_device
        self.rank = rank
        self.devices = devices
        self.seed = seed
        self.epoch = 0

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
        return whole * self._steps(self.batch_size) + self._steps(left)

    def __iter__(self) -> Iterator[list[RowPosition]]:
        order = self.order()
        for begin in range(0, self.rows, self.batch_size):
            update = order[begin : begin + self.batch_size]
            pieces = [update[at : at + self.per_device] for at in range(0, len(update), self.per_device)]
            for step in range(self._steps(len(update))):
                number = step * self.devices + self.rank
                mine: Sequence[int | None] = pieces[number] if number < len(pieces) else [None]
                yield [RowPosition(row, len(update)) for row in mine]

    def _steps(self, rows: int) -> int:
        return -(-rows // (self.per_device * self.devices))


class PositionedRows(Dataset[dict[str, Any]]):  # type: ignore[misc]
    """The rows of a table by their places, each with its share; an empty place gets a row that teaches nothing."""

    def __init__(self, rows: Any, empty: dict[str, Any]) -> None:  # noqa: ANN401  a datasets.Dataset
        self.rows = rows
        self.empty = empty

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: RowPosition) -> dict[str, Any]:
        if place.row is None:
            return {**self.empty, SHARE: 0.0}
        return {**self.rows[place.row], SHARE: 1 / place.rows_in_update}


class Updates:
    """What both trainers change in how transformers' Trainer goes through the data; put before it among the bases."""

    empty: dict[str, Any]
    """A row without anything to learn, for a device that has none left in an update."""
    groups: Sequence[int] | None = None
    """The group of each row, where rows of one group are to be learnt together."""
    args: Any
    state: Any
    control: Any
    train_dataset: Any
    data_collator: Any

    def get_train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """This device's micro-batches; batches go to the device when they are used."""
        args = self.args
        batches = UpdateBatches(
            len(self.train_dataset),
            batch_size=args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size,
            per_device=args.per_device_train_batch_size,
            rank=args.process_index,
            devices=args.world_size,
            seed=args.seed,
            groups=self.groups,
        )
        return DataLoader(
            PositionedRows(self.train_dataset, self.empty),
            batch_sampler=batches,
            collate_fn=self.data_collator,
            pin_memory=args.dataloader_pin_memory,
            generator=torch.Generator(),  # of its own: the draws of dropout must not depend on how data is read
        )

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  what Trainer hands on
        """Take no further update when the last one is already in the checkpoint.

        transformers looks for the end only after an update, so a run that was killed after its last checkpoint took
        one too many where `max_steps`, or a part of an epoch, is the end.
        """
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)  # type: ignore[misc]


class Epochs(TrainerCallback):  # type: ignore[misc]
    """Counts epochs by rows: transformers counts micro-batches, of which the last update may have fewer."""

    def __init__(self, rows: int, batch_size: int) -> None:
        self.rows = rows
        self.batch_size = batch_size

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Set how many times the data has been gone through."""
        epochs, updates = divmod(state.global_step, -(-self.rows // self.batch_size))
        state.epoch = epochs + updates * self.batch_size / self.rows
