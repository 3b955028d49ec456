"""The reference of RPO, asked once for every pair before the first update, and the one way to compute logits."""

from __future__ import annotations

import hashlib
import json
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from transformers import TrainerCallback
from trl.trainer.utils import add_fused_lm_head

from medllm.errors import TrainingError
from medllm.files import atomic_write
from medllm.training.updates import SHARE

WHOLE_LOGITS = 2**27
"""Up to so many logits (0.5 GB in float32) at once, they are quicker whole than in tiles."""


def vocabulary_of(model: Any) -> int:  # noqa: ANN401  a PeftModel or a full model
    """How many logits each position has."""
    return int(model.get_output_embeddings().weight.shape[0])


def fuse_head(model: Any) -> None:  # noqa: ANN401  a PeftModel or a full model
    """Let `model(..., fused_lm_head=True)` give the log-probabilities of the labels and no more.

    TRL's trainers add a head that computes figures of its own besides, entropy for one, which we do not log.
    """
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    base.__dict__.pop("forward", None)
    add_fused_lm_head(base, outputs=("log_probs",))


FILE = "reference.parquet"
TOLERANCE = {"cuda": 1e-3}
"""How far policy and reference may lie apart before the first update, as a part of the log-probability: on a CPU not
at all; on CUDA a pass with gradients may choose another kernel than one without."""


class ComputeReference(TrainerCallback):  # type: ignore[misc]
    """Keeps the reference's log-probabilities of all pairs, in the work folder beside the checkpoints.

    They are computed by the wrapped model itself, in the micro-batches of the first epoch, before anything is learnt.
    So nothing of the model is copied or switched for the reference, and every process takes part in the same passes.
    A run that goes on from a checkpoint reads them.
    """

    def __init__(self, trainer: Any, path: Path) -> None:  # noqa: ANN401  an RpoTrainer
        self.trainer = trainer
        self.path = path

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Read what is known, or compute it with the model as it is now."""
        trainer = self.trainer
        split = [args.per_device_train_batch_size, args.world_size, args.seed, trainer.groups is not None]
        split.append(trainer.data_collator.layout)
        split += [trainer.mixed.per_update, fingerprint(trainer.mixed.rows)] if trainer.mixed else []
        held_out = "" if trainer.eval_dataset is None else fingerprint(trainer.eval_dataset)
        key = {"pairs": fingerprint(trainer.train_dataset) + held_out, "split": json.dumps(split)}
        begun = state.global_step > 0
        # To their last bit the numbers belong to the micro-batches too; a run that has begun takes them as they are.
        kept = read_reference(self.path, {"pairs": key["pairs"]} if begun else key)
        known = torch.tensor(float(kept is not None), device=args.device)
        if trainer.accelerator.reduce(known, "sum") < args.world_size:
            if begun or trainer.reference_checked:
                raise TrainingError(
                    "training.reference-missing",
                    f"rpo: {self.path}, the reference of this run, is missing or of other pairs, so the run cannot "
                    "continue. Put the file back, or remove its folder to start from the beginning.",
                )
            kept = self._computed()
            if trainer.is_world_process_zero():
                write_reference(self.path, kept, key)
            trainer.accelerator.wait_for_everyone()
        trainer.reference = kept

    def _computed(self) -> torch.Tensor:
        """Log-probabilities (pairs x 2, float32) of what the first epoch takes or is held out; NaN for the others."""
        trainer = self.trainer
        args, state = trainer.args, trainer.state
        evaluates = trainer.eval_dataset is not None
        numbers = chain(trainer.train_dataset["pair"], trainer.eval_dataset["pair"] if evaluates else ())
        table = torch.zeros((max(numbers) + 1, 3), device=args.device)
        trainer.model.eval()
        steps = state.max_steps * args.gradient_accumulation_steps
        learnt = islice(trainer.get_train_dataloader(), steps)
        for batch in chain(learnt, trainer.get_eval_dataloader() if evaluates else ()):
            batch = trainer._prepare_inputs(batch)
            with torch.no_grad(), trainer.compute_loss_context_manager():
                chosen, rejected, *_ = trainer.answer_logps(trainer.model, batch)
            real = (batch[SHARE] > 0) & (batch["pair"] >= 0)
            values = torch.stack([chosen, rejected, torch.ones_like(chosen)], 1)
            table[batch["pair"][real]] = values[real].float()
        trainer.model.train()
        summed = trainer.accelerator.reduce(table, "sum").cpu()
        reference: torch.Tensor = summed[:, :2].where(summed[:, 2:] > 0, torch.nan)
        return reference


class ReferenceKnown(Exception):
    """Ends a training before its first update: all that was wanted of it is the reference."""


class EndWithReference(TrainerCallback):  # type: ignore[misc]
    """Ends a training as soon as the reference is in its file, in every process."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Raise ReferenceKnown; the callbacks before this one have computed it."""
        raise ReferenceKnown


def fingerprint(pairs: Any) -> str:  # noqa: ANN401  a datasets.Dataset
    """Hash every token of these pairs, so that no other pairs have the same fingerprint."""
    values = hashlib.sha256(json.dumps(list(pairs["pair"])).encode())
    for name in ("prompt_ids", "chosen_ids", "rejected_ids"):
        column = pairs.data.column(name)
        values.update(pc.list_value_length(column).to_numpy().tobytes())
        values.update(pc.list_flatten(column).to_numpy().tobytes())
    return values.hexdigest()


def read_reference(path: Path, key: dict[str, str]) -> torch.Tensor | None:
    """Read the numbers (pairs x 2) from their file; None where there is none, or one of another key."""
    try:
        table = pq.read_table(path)
    except (FileNotFoundError, pa.ArrowInvalid):
        return None
    values = {name.decode(): value.decode() for name, value in (table.schema.metadata or {}).items()}
    if any(values.get(name) != value for name, value in key.items()):
        return None
    columns = [torch.from_numpy(table.column(name).to_numpy().copy()) for name in ("chosen", "rejected")]
    return torch.stack(columns, 1)


def write_reference(path: Path, reference: torch.Tensor, key: dict[str, str]) -> None:
    """Write the numbers (pairs x 2), whole or not at all; a pair that no update takes has none."""
    sides = {"chosen": reference[:, 0].numpy(), "rejected": reference[:, 1].numpy()}
    columns = {name: pa.array(numbers, mask=np.isnan(numbers)) for name, numbers in sides.items()}
    table = pa.table(columns).replace_schema_metadata(key)
    with atomic_write(path) as part:
        pq.write_table(table, part)


def check_reference(policy: tuple[torch.Tensor, ...], reference: tuple[torch.Tensor, ...]) -> None:
    """Before the first update the policy is the reference; a wrong reference shows only here.

    Raises TrainingError with the distance where they differ by more than TOLERANCE allows on their device.
    """
    for ours, theirs in zip(policy[:2], reference[:2], strict=True):
        apart = (ours.detach() - theirs).abs()
        allowed = TOLERANCE.get(ours.device.type, 0.0) * theirs.abs()
        if not bool((apart <= allowed).all()):
            raise TrainingError(
                "training.reference-differs",
                f"rpo: before the first update the policy and the reference differ by {float(apart.max()):.3g} in "
                "log-probability, so the reference is not the model that training starts from. Give one adapter, or a "
                "merged model, as `model`.",
            )
