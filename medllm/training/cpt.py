"""Continued pretraining: TRL's SFTTrainer over rows of whole documents."""

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, ProgressCallback
from transformers.utils.generic import is_flash_attention_requested
from trl import SFTConfig, SFTTrainer

from medllm.recipe.settings import Cpt
from medllm.training.arguments import learning, lora_config, set_up_adapters, trainer_arguments
from medllm.training.callbacks import LAST_GOOD, StopOnNonFinite, TrainingLog, add_curves, watch_sharding
from medllm.training.checkpointing import Checkpoints
from medllm.training.logits import WHOLE_LOGITS, fuse_head, vocabulary_of
from medllm.training.packing import IGNORED, RowCollator
from medllm.training.sampling import SHARE, Epochs, Updates


class RowTrainer(Updates, SFTTrainer):  # type: ignore[misc]
    """TRL's trainer with one way of computing the loss for the whole run, the same on every device."""

    def __init__(self, *, whole: bool, **kwargs: Any) -> None:  # noqa: ANN401  what SFTTrainer takes
        super().__init__(**kwargs)
        self.whole = whole
        self.loss_is_scaled_for_ga = True

    def compute_loss(
        self,
        model: Any,  # noqa: ANN401
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> Any:  # noqa: ANN401
        """The negative log-likelihood of the batch's predicted tokens, as its part of the mean over the update."""
        passed = {key: value for key, value in inputs.items() if key not in ("labels", SHARE)}
        labels = inputs["labels"]
        if self.whole:
            logits = model(**passed, use_cache=False).logits[:, :-1].float()
            total = torch.nn.functional.cross_entropy(
                logits.reshape(-1, logits.shape[-1]),
                labels[:, 1:].reshape(-1),
                ignore_index=IGNORED,
                reduction="sum",
            )
        else:
            total = -model(**passed, labels=labels, fused_lm_head=True).log_probs.sum()
        if num_items_in_batch is None:
            num_items_in_batch = (labels[:, 1:] != IGNORED).sum()
        # It counts the tokens of every device, whose gradients are averaged afterwards. An update of documents of one
        # token each predicts nothing.
        loss = total / torch.as_tensor(num_items_in_batch).clamp(min=1) * self.accelerator.num_processes
        return (loss, {}) if return_outputs else loss


def make_trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    settings: Cpt,
    work: Path,
) -> RowTrainer:
    """Everything wired, ready to train or to go on."""
    arguments = SFTConfig(
        **trainer_arguments(settings, work), packing=False, dataset_kwargs={"skip_prepare_dataset": True}
    )
    fresh = lora_config(settings.lora, model) if not hasattr(model, "peft_config") else None
    flat = is_flash_attention_requested(model.config)
    start = learning(model)
    at_once = settings.per_device_train_batch_size * settings.max_length * vocabulary_of(model)
    trainer = RowTrainer(
        whole=at_once <= WHOLE_LOGITS,
        model=model,
        args=arguments,
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=fresh,
        data_collator=RowCollator(tokenizer.pad_token_id, flat=flat),
    )
    set_up_adapters(trainer, start)
    fuse_head(trainer.model)
    watch_sharding(trainer)
    trainer.empty = {"input_ids": [tokenizer.pad_token_id], "seq_lengths": [1]}
    for prints in (PrinterCallback, ProgressCallback):  # what they print as dicts is in the log and the progress
        trainer.remove_callback(prints)
    trainer.add_callback(Epochs(len(rows), settings.total_batch_size))
    trainer.add_callback(StopOnNonFinite(trainer, work / LAST_GOOD))
    trainer.add_callback(TrainingLog(work / "training" / "log.jsonl", trainer.is_world_process_zero()))
    add_curves(trainer, settings.report_to, work / "training" / "tensorboard")
    trainer.checkpoints = Checkpoints(trainer, settings.save_minutes)
    trainer.add_callback(trainer.checkpoints)
    return trainer
