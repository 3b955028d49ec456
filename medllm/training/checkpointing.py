"""Checkpoints by the clock and before an end that is asked for: all processes save after the same update."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback

from medllm.errors import TrainingError

SIGNALS = (signal.SIGUSR1, signal.SIGTERM)
"""At these a training saves at the end of the update at work, and ends."""


class Checkpoints(TrainerCallback):  # type: ignore[misc]
    """Asks for a checkpoint when so many minutes have passed since the last one, and for one and the end at a signal.

    A signal may reach one process only, and clocks differ: so the processes bring their wishes together after each
    update, and the first one's clock counts.
    """

    def __init__(
        self,
        trainer: Any,  # noqa: ANN401  one of our trainers
        minutes: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.trainer = trainer
        self.seconds = minutes * 60
        self.clock = clock
        self.saved = clock()
        self.asked = False
        self.stopped = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear the signals while this holds; outside the main thread, where Python takes none, nothing changes.

        A second one does what it did before.
        """
        before: dict[int, Any] = {}

        def heard(number: int, _: FrameType | None) -> None:
            self.asked = True
            signal.signal(number, before[number])

        if threading.current_thread() is threading.main_thread():
            before = {number: signal.signal(number, heard) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Start the clock of the checkpoints."""
        self.saved = self.clock()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Look at the clock and at what was asked, and agree with the other processes."""
        late = state.is_world_process_zero and self.clock() - self.saved >= self.seconds
        asked, late = self.asked, bool(late)
        if args.world_size > 1:
            told = torch.tensor([float(asked), float(late)], device=args.device)
            asked, late = (wish > 0 for wish in self.trainer.accelerator.reduce(told, "sum").tolist())
        if asked or late:
            control.should_save = True
        if asked and state.global_step < state.max_steps:
            control.should_training_stop = self.stopped = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Start the clock again."""
        self.saved = self.clock()

    def end_if_stopped(self, stage: str) -> None:
        """Raise TrainingError when the training ended because it was asked to."""
        if self.stopped:
            raise TrainingError(
                "training.stopped-on-request",
                f"{stage}: stopped on request after update {self.trainer.state.global_step}, which is saved. Run again "
                "to continue from there.",
            )
