"""Reasoning Preference Optimization on TRL's DPOTrainer: DPO + alpha * NLL, as in Pang et al. (arXiv:2404.19733).

The loss of one pair is
    -log sigmoid(beta * ((log p(w) - log r(w)) - (log p(l) - log r(l)))) + alpha * -log p(w) / |w|
with p the policy, r the reference, w the chosen and l the rejected answer, |w| the tokens of the chosen answer with
its end mark and without the prompt. A batch's loss is the mean over its pairs, however it is split over devices and
accumulation; TRL's own `loss_type=["sigmoid", "sft"]` averages the second term over the tokens of a micro-batch
instead, so that long answers weigh more and the result depends on the split.

A conversation c that joins the pairs (`rpo.mix`) has the loss
    weight * -log p(c) / |c|
where -log p(c) is summed over the tokens of the assistant's turns, |c| of them. Of P pairs and C conversations in an
update the loss is the sum of all their losses, divided by P + C.
"""

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, PrinterCallback, ProgressCallback
from trl import DPOConfig, DPOTrainer

from medllm.recipe.settings import Rpo
from medllm.training.callbacks import (
    LAST_GOOD,
    Samples,
    StopOnNonFinite,
    TrainingLog,
    WatchChosenReward,
    add_curves,
    watch_sharding,
)
from medllm.training.checkpointing import Checkpoints
from medllm.training.load import (
    has_dropout,
    keep_lora_dropout_only,
    learning,
    set_up_adapters,
    set_up_optimizer,
    trainer_arguments,
)
from medllm.training.losses import PairLogps, rpo_loss
from medllm.training.pair_batches import NOTHING, PairCollator
from medllm.training.reference import (
    FILE,
    WHOLE_LOGITS,
    ComputeReference,
    check_reference,
    fuse_head,
    vocabulary_of,
)
from medllm.training.targets import lora_config
from medllm.training.updates import SHARE, Epochs, MixedIn, Updates, add_evaluation, own_rows
from medllm.weights.probing import value_of

PAIRS = "pairs"
"""The sum that counts the pairs of the others."""
MIXED, MIX = "conversations", "loss/mix"
"""The sum that counts conversations that join the pairs, and that of their mean negative log-likelihoods."""
FOR_MODEL = ("input_ids", "position_ids", "attention_mask")


def answer_logps(model: Any, batch: dict[str, Any], *, whole: bool = True) -> PairLogps:  # noqa: ANN401  bare or wrapped
    """Log-probabilities and lengths of each pair's chosen and rejected answer.

    With `whole` the logits of all answers are built at once, which is quickest where they are few; without, the head
    that `fuse_head` gave the model computes them in tiles.
    """
    prompt, *widths = batch["widths"]
    targets: torch.Tensor = batch["targets"]
    inputs = {key: batch[key] for key in FOR_MODEL}
    asked = targets[:, prompt:]
    if whole:
        logits = model(**inputs, use_cache=False, logits_to_keep=asked.shape[1]).logits.float()
        named = asked.clamp(min=0)[..., None]
        scores = (logits.gather(-1, named)[..., 0] - logits.logsumexp(-1)) * (asked != NOTHING)
    else:
        scores = model(**inputs, shift_labels=targets, fused_lm_head=True).log_probs[:, prompt:].float()
    # One sum for each answer of each row; a pair finds its answers by their number.
    sums = torch.stack([part.sum(1) for part in scores.split(widths, 1)], 1).reshape(-1)
    counts = torch.stack([part.sum(1) for part in (asked != NOTHING).split(widths, 1)], 1).reshape(-1)
    won, lost = batch["chosen"], batch["rejected"]
    return PairLogps(sums[won], sums[lost], counts[won], counts[lost])


class RpoTrainer(Updates, DPOTrainer):  # type: ignore[misc]
    """TRL's trainer with the loss of the paper: each pair of an update weighs the same, on whichever device it is."""

    reference: torch.Tensor
    """The reference's log-probabilities of the chosen and the rejected answer, by the number of the pair."""

    def __init__(self, *, settings: Rpo, whole: bool, **kwargs: Any) -> None:  # noqa: ANN401  what DPOTrainer takes
        super().__init__(**kwargs)
        self.loss_options: dict[str, Any] = {"beta": settings.beta, "alpha": settings.rpo_alpha}
        self.loss_options |= {"loss_type": settings.loss_type, "label_smoothing": settings.label_smoothing}
        self.mix_weight = settings.mix.weight if settings.mix else 0.0
        self.whole = whole
        self.loss_is_scaled_for_ga = True
        self.reference_checked = settings.reference is not None  # it differs from the policy
        self._sums: dict[str, torch.Tensor] = {}

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:  # noqa: ANN401
        """Pairs come tokenized."""
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        """The reference is asked before the first update, for a full model as for an adapter."""
        return dataset

    def answer_logps(self, model: Any, batch: dict[str, Any]) -> PairLogps:  # noqa: ANN401  bare or wrapped
        """Log-probabilities of a batch's answers, in the one way of this run."""
        return answer_logps(model, batch, whole=self.whole)

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:  # noqa: ANN401
        share = inputs[SHARE].float()
        taught, reference = self._reference_of(inputs)
        spoken = (inputs[SHARE] > 0) & ~taught
        policy = self.answer_logps(model, inputs)
        if not self.reference_checked and self.state.global_step == 0:
            self._check_reference(model, inputs, policy, reference)
        dpo, nll = rpo_loss(policy, reference, **self.loss_options)
        losses = (dpo + nll).where(taught, 0.0)
        figures = self._figures(taught, policy, reference, dpo)
        if self.mixed is not None:
            means = (-policy.chosen / policy.chosen_tokens).where(spoken, 0.0)
            losses = losses + self.mix_weight * means
            figures |= {MIX: means.detach().double().sum(), MIXED: spoken.double().sum()}
        # Sums of all devices are only brought together when a line of the log is written.
        for name, value in figures.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        # Devices' gradients are averaged afterwards, so each takes its part so many times.
        loss = (losses * share).sum() * self.accelerator.num_processes
        return (loss, {}) if return_outputs else loss

    def _reference_of(self, inputs: dict[str, Any]) -> tuple[torch.Tensor, PairLogps]:
        """Which rows of a batch are pairs, and the reference's log-probabilities of their answers."""
        taught = (inputs[SHARE] > 0) & (inputs["pair"] >= 0)
        kept = self.reference[inputs["pair"].cpu()].to(taught.device).where(taught[:, None], 0.0)
        return taught, PairLogps(kept[:, 0], kept[:, 1], *[torch.ones_like(kept[:, 0])] * 2)

    def eval_sums(self, model: Any, inputs: dict[str, Any]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:  # noqa: ANN401
        """The figures of a batch's pairs, the loss among them, and how many pairs these are."""
        taught, reference = self._reference_of(inputs)
        policy = self.answer_logps(model, inputs)
        dpo, nll = rpo_loss(policy, reference, **self.loss_options)
        sums = {"loss": (dpo + nll).where(taught, 0.0).sum(), **self._figures(taught, policy, reference, dpo)}
        return sums, sums.pop(PAIRS)

    def _check_reference(self, model: Any, inputs: dict[str, Any], policy: PairLogps, reference: PairLogps) -> None:  # noqa: ANN401
        """Compare the policy with the reference on the first micro-batch, both without dropout."""
        taught = (inputs[SHARE] > 0) & (inputs["pair"] >= 0)
        if has_dropout(model):
            model.eval()
            with torch.no_grad():
                policy = self.answer_logps(model, inputs)
            model.train()
        check_reference(tuple(values[taught] for values in policy), tuple(values[taught] for values in reference))
        self.reference_checked = True

    def _figures(
        self, taught: torch.Tensor, policy: PairLogps, reference: PairLogps, dpo: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Sum up what the log shows over the real pairs of a batch."""
        chosen, rejected = policy[0].detach(), policy[1].detach()
        won, lost = self.beta * (chosen - reference[0]), self.beta * (rejected - reference[1])
        values = {
            "loss/dpo": dpo.detach(),
            "loss/nll": -chosen / policy.chosen_tokens,
            "logps/chosen": chosen,
            "logps/rejected": rejected,
            "rewards/chosen": won,
            "rewards/rejected": lost,
            "rewards/margins": won - lost,
            "rewards/accuracies": (won > lost).float(),
            PAIRS: torch.ones_like(won),
        }
        return {name: value.double().where(taught, 0.0).sum() for name, value in values.items()}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means over all pairs since the last line; every process comes here at the same updates."""
        if self._sums and not any(name.startswith("eval_") for name in logs):
            names = list(self._sums)
            summed = self.accelerator.reduce(torch.stack(list(self._sums.values())).float(), "sum").tolist()
            figures = dict(zip(names, summed, strict=True))
            spoken = figures.pop(MIXED, 0.0)
            if MIX in figures:
                logs[MIX] = figures.pop(MIX) / max(spoken, 1.0)
            logs.update({name: value / figures[PAIRS] for name, value in figures.items() if name != PAIRS})
            self._sums = {}
        super().log(logs, start_time)


def _arguments(settings: Rpo, work: Path, model: Any, rows: int) -> DPOConfig:  # noqa: ANN401
    # Of a full model TRL would load a second one for the reference, unless it is to compute it beforehand.
    beforehand = settings.lora is None and not hasattr(model, "peft_config")
    common = trainer_arguments(settings, work, model, rows)
    return DPOConfig(**common, beta=settings.beta, disable_dropout=False, precompute_ref_log_probs=beforehand)


def _collator(model: Any, tokenizer: PreTrainedTokenizerBase) -> PairCollator:  # noqa: ANN401  as make_trainer takes it
    config = model.config.get_text_config()
    kinds = getattr(config, "layer_types", None)
    # Without kinds of layers, a model that has a window has it in all of them.
    sliding = kinds is None or "sliding_attention" in kinds
    return PairCollator(
        tokenizer.pad_token_id,
        shared=config._attn_implementation == "sdpa",
        window=value_of(config, "sliding_window") if sliding else None,
        mixed=kinds is not None,
    )


def make_trainer(
    model: Any,  # noqa: ANN401  a PeftModel with the adapter to train on, or a full model
    tokenizer: PreTrainedTokenizerBase,
    pairs: Dataset,
    settings: Rpo,
    work: Path,
    held_out: Dataset | None = None,
    *,
    say: Callable[[str], None],
    mix: Dataset | None = None,
) -> RpoTrainer:
    """Everything wired, ready to train or to go on; `held_out` are the pairs of its evaluations.

    `mix` are conversations that join them, as `conversations_as_pairs` lays them out.
    """
    continues = hasattr(model, "peft_config")
    start = learning(model)
    every = chain(pairs, held_out or (), mix or ())
    answers = max(len(pair["chosen_ids"]) + len(pair["rejected_ids"]) for pair in every)
    at_once = settings.per_device_train_batch_size * answers * vocabulary_of(model)
    trainer = RpoTrainer(
        settings=settings,
        whole=at_once <= WHOLE_LOGITS,
        model=model,
        args=_arguments(settings, work, model, len(pairs)),
        train_dataset=pairs,
        eval_dataset=held_out,
        processing_class=tokenizer,
        peft_config=None if continues or settings.lora is None else lora_config(settings.lora, model),
        data_collator=_collator(model, tokenizer),
    )
    if "ref" in getattr(trainer.model, "peft_config", ()):
        trainer.model.delete_adapter("ref")  # TRL's copy: the reference is asked before the first update instead
    set_up_adapters(trainer, start)
    set_up_optimizer(trainer, settings)
    keep_lora_dropout_only(trainer.model)
    fuse_head(trainer.model)
    watch_sharding(trainer)
    if settings.order == "questions":
        numbers: dict[tuple[int, ...], int] = {}
        trainer.groups = [numbers.setdefault(tuple(prompt), len(numbers)) for prompt in pairs["prompt_ids"]]
    pad = [tokenizer.pad_token_id]
    trainer.empty = {"prompt_ids": pad, "chosen_ids": pad, "rejected_ids": pad, "pair": -1}
    for prints in (PrinterCallback, ProgressCallback):  # what they print as dicts is in the log and the progress
        trainer.remove_callback(prints)
    trainer.add_callback(ComputeReference(trainer, work / FILE))
    trainer.mixed = None if mix is None else MixedIn(mix, settings.mixed_rows)
    trainer.add_callback(Epochs(trainer, own_rows(settings)))
    trainer.add_callback(StopOnNonFinite(trainer, work / LAST_GOOD))
    trainer.falling = WatchChosenReward(trainer, work / LAST_GOOD, settings.on_falling_chosen, say)
    trainer.add_callback(trainer.falling)
    trainer.add_callback(TrainingLog(work / "training" / "log.jsonl", trainer.is_world_process_zero()))
    trainer.add_callback(Samples(work / "training" / "samples.jsonl", tokenizer, pairs))
    add_curves(trainer, settings.report_to, work / "training" / "tensorboard")
    add_evaluation(trainer, settings, work)
    trainer.checkpoints = Checkpoints(trainer, settings.save_minutes)
    trainer.add_callback(trainer.checkpoints)
    return trainer
