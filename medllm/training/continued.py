"""Continued pretraining: TRL's SFTTrainer over rows of whole documents."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from medllm.recipe.settings import Cpt
from medllm.training.arguments import learning, lora_config, set_up_adapters, trainer_arguments
from medllm.training.drawn import add_curves
from medllm.training.packing import IGNORED, RowCollator
from medllm.training.watch import LAST_GOOD, Finite, Log, Saved

# Below so many logits (0.5 GB in float32) they are cheaper whole than in TRL's tiles with their entropy and accuracy.
WHOLE_LOGITS = 2**27


class RowTrainer(SFTTrainer):  # type: ignore[misc]
    """TRL's trainer, with the loss taken over the whole batch at once where the logits are few."""

    def compute_loss(
        self,
        model: Any,  # noqa: ANN401
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> Any:  # noqa: ANN401
        """Mean negative log-likelihood of the batch's predicted tokens."""
        vocabulary = self.model.get_output_embeddings().weight.shape[0]
        if return_outputs or num_items_in_batch is None or inputs["input_ids"].numel() * vocabulary > WHOLE_LOGITS:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels = inputs["labels"][:, 1:]
        passed = {key: value for key, value in inputs.items() if key != "labels"}
        logits = model(**passed, use_cache=False).logits[:, :-1].float()
        loss = torch.nn.functional.cross_entropy(
            logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), ignore_index=IGNORED, reduction="sum"
        )
        # num_items_in_batch counts the tokens of every device, and their gradients are averaged afterwards.
        return loss / num_items_in_batch * self.accelerator.num_processes


def make_trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    settings: Cpt,
    work: Path,
    *,
    saved: Callable[[Path], None] | None = None,
) -> RowTrainer:
    """Everything wired, ready to train or to go on."""
    arguments = SFTConfig(
        **trainer_arguments(settings, work), packing=False, dataset_kwargs={"skip_prepare_dataset": True}
    )
    fresh = lora_config(settings.lora) if not hasattr(model, "peft_config") else None
    flat = getattr(model.config, "_attn_implementation", "").startswith("flash")
    start = learning(model)
    trainer = RowTrainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=fresh,
        data_collator=RowCollator(tokenizer.pad_token_id, flat=flat),
    )
    set_up_adapters(trainer, start)
    trainer.add_callback(Finite(work / LAST_GOOD))
    trainer.add_callback(Log(work / "training" / "log.jsonl", trainer.is_world_process_zero()))
    add_curves(trainer, settings.trackers, work / "training" / "tensorboard")
    if saved is not None:
        trainer.add_callback(Saved(saved))
    return trainer
