"""A proof that sharing a model out did not change it: the same short text, before and after."""

from __future__ import annotations

from typing import Any

import torch
from transformers import TrainerCallback

from medllm.errors import TrainingError
from medllm.training.ranks import is_sharded

TOKENS = 16
ALLOWED = 0.05
"""How far the logits may move, as a part of their own size: the adapter is computed in bfloat16 once it is shared."""


class SameAfterSharding(TrainerCallback):  # type: ignore[misc]
    """Asks the whole model on each device before training begins, and the shared one before the first update."""

    def __init__(self, trainer: Any) -> None:  # noqa: ANN401  one of our trainers
        self.trainer = trainer
        self.ids = torch.arange(1, 1 + TOKENS, device=trainer.args.device)[None]
        self.before = self._logits()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Compare; a checkpoint that the run goes on from has changed the adapter, and is not compared."""
        if state.global_step == 0:
            compare(self.before, self._logits())

    def _logits(self) -> torch.Tensor:
        model = self.trainer.model
        learns = model.training
        model.eval()
        with torch.no_grad(), self.trainer.compute_loss_context_manager():
            logits: torch.Tensor = model(input_ids=self.ids, use_cache=False).logits.float()
        model.train(learns)
        return logits


def compare(before: torch.Tensor, after: torch.Tensor) -> None:
    """Raise TrainingError where logits (any shape, the same for both) have moved by more than ALLOWED of their size."""
    apart = float((after - before).norm() / before.norm())
    if not apart <= ALLOWED:
        raise TrainingError(
            "training.sharding-changes-weights",
            f"dividing the model over the devices changed its logits by {apart:.1%}, so its weights are no longer the "
            "base's (bitsandbytes issue 1945). Set `accelerate: ddp`, or `quantization: none`.",
        )


def watch_sharding(trainer: Any) -> None:  # noqa: ANN401  one of our trainers
    """Add the proof where FSDP will share the model out."""
    if is_sharded():
        trainer.add_callback(SameAfterSharding(trainer))
