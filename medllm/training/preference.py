"""Reasoning Preference Optimization on TRL's DPOTrainer: DPO + alpha * NLL, as in Pang et al. (arXiv:2404.19733).

The loss of one pair is
    -log sigmoid(beta * ((log p(w) - log r(w)) - (log p(l) - log r(l)))) + alpha * -log p(w) / |w|
with p the policy, r the reference, w the chosen and l the rejected answer, |w| the tokens of the chosen answer with
its end mark and without the prompt. A batch's loss is the mean over its pairs, however it is split over devices and
accumulation; TRL's own `loss_type=["sigmoid", "sft"]` averages the second term over the tokens of a micro-batch
instead, so that long answers weigh more and the result depends on the split.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.nn.functional import logsigmoid
from transformers import PreTrainedTokenizerBase
from trl import DPOConfig, DPOTrainer

from medllm.errors import TrainingError
from medllm.recipe.settings import Rpo
from medllm.training.arguments import learning, lora_config, set_up_adapters, trainer_arguments
from medllm.training.drawn import Samples, add_curves
from medllm.training.pairs import PairCollator
from medllm.training.watch import LAST_GOOD, FallingChosen, Finite, Log, Saved

Logps = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
NOT_FOR_MODEL = ("answers", "pair", "widths")


def rpo_loss(policy: Logps, reference: Logps, *, beta: float, alpha: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Both terms per pair: the DPO loss, and the chosen answer's mean negative log-likelihood."""
    chosen, rejected, lengths = policy
    margins = (chosen - reference[0]) - (rejected - reference[1])
    return -logsigmoid(beta * margins), -chosen / lengths * alpha


def answer_logps(model: Any, batch: dict[str, Any]) -> Logps:  # noqa: ANN401  a model, bare or wrapped
    """Log-probabilities of the chosen and the rejected answers, and the lengths of the chosen ones."""
    answers: torch.Tensor = batch["answers"]
    inputs = {key: value for key, value in batch.items() if key not in NOT_FOR_MODEL}
    width = answers.shape[1]
    logits = model(**inputs, use_cache=False, logits_to_keep=width + 1).logits.float()
    widths = batch["widths"].tolist()
    before = torch.arange(width, device=answers.device)
    if len(widths) == 3:  # the rejected answer, too, goes on from the prompt's last token
        before[widths[1]] = 0
    # Row `before[i]` of the kept logits predicts answer token i; row 0 is the prompt's last token.
    scores = logits[:, before]
    named = answers.clamp(min=0)[..., None]
    per_token = scores.gather(-1, named)[..., 0] - scores.logsumexp(-1)
    per_token = per_token * (answers != -100)
    counted = (answers != -100).sum(1)
    if len(widths) == 3:
        first = widths[1]
        lengths = (answers[:, :first] != -100).sum(1)
        return per_token[:, :first].sum(1), per_token[:, first:].sum(1), lengths
    chosen, rejected = per_token.sum(1).chunk(2)
    return chosen, rejected, counted.chunk(2)[0]


class RpoTrainer(DPOTrainer):  # type: ignore[misc]
    """TRL's trainer and its reference adapters; the loss is averaged per pair, the reference proved at the start."""

    def __init__(self, *, alpha: float, **kwargs: Any) -> None:  # noqa: ANN401  what DPOTrainer takes
        super().__init__(**kwargs)
        self.alpha = alpha
        # The reference does not learn: over several epochs its log-probabilities are computed in the first.
        self.known: dict[int, tuple[float, float]] = {}
        self.proved = False

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:  # noqa: ANN401
        """Pairs come tokenized."""
        return dataset

    def reference_logps(self, batch: dict[str, Any]) -> Logps:
        """Log-probabilities under the reference: the frozen copy of the adapter we began with, or the bare base."""
        numbers = batch["pair"].tolist()
        if not all(number in self.known for number in numbers):
            model = self.accelerator.unwrap_model(self.model)
            previous = model.active_adapter
            with torch.no_grad():
                if "ref" in model.peft_config:
                    model.set_adapter("ref")
                    logps = answer_logps(self.model, batch)
                    model.set_adapter(previous)
                else:
                    with model.disable_adapter():
                        logps = answer_logps(self.model, batch)
            self.known.update(zip(numbers, zip(logps[0].tolist(), logps[1].tolist(), strict=True), strict=True))
        kept = torch.tensor([self.known[number] for number in numbers], device=batch["answers"].device)
        return kept[:, 0], kept[:, 1], torch.ones_like(kept[:, 0])

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:  # noqa: ANN401
        reference = self.reference_logps(inputs)
        policy = answer_logps(model, inputs)
        if not self.proved and self.state.global_step == 0:
            self._prove(policy, reference)
        dpo, nll = rpo_loss(policy, reference, beta=self.beta, alpha=self.alpha)
        self._note(policy, reference, dpo, nll)
        loss = (dpo + nll).mean()
        return (loss, {}) if return_outputs else loss

    def _prove(self, policy: Logps, reference: Logps) -> None:
        """Before the first update the policy is the reference, to the last bit; a wrong reference shows only here."""
        apart = max(float((p - r).detach().abs().max()) for p, r in zip(policy[:2], reference[:2], strict=True))
        if apart != 0:
            raise TrainingError(
                f"rpo: before the first update policy and reference differ by {apart:.3g} in log-probability, so the "
                "reference is not the model that training starts from. Give one adapter, or a merged model, as `model`."
            )
        self.proved = True

    def _note(self, policy: Logps, reference: Logps, dpo: torch.Tensor, nll: torch.Tensor) -> None:
        """Keep what the log shows, averaged over all devices when it is written."""
        with torch.no_grad():
            won, lost = (self.beta * (p - r) for p, r in zip(policy[:2], reference[:2], strict=True))
            values = {
                "loss/dpo": dpo,
                "loss/nll": -policy[0] / policy[2],
                "logps/chosen": policy[0],
                "logps/rejected": policy[1],
                "rewards/chosen": won,
                "rewards/rejected": lost,
                "rewards/margins": won - lost,
                "rewards/accuracies": (won > lost).float(),
            }
            for name, value in values.items():
                self._metrics["train"][name].append(self.accelerator.gather(value.detach()).mean().item())


def make_trainer(
    model: Any,  # noqa: ANN401  a PeftModel with the adapter to train on, or a full model
    tokenizer: PreTrainedTokenizerBase,
    pairs: Dataset,
    settings: Rpo,
    work: Path,
    *,
    say: Callable[[str], None],
    saved: Callable[[Path], None] | None = None,
) -> RpoTrainer:
    """Everything wired, ready to train or to go on."""
    config = model.config.get_text_config()
    sliding = "sliding_attention" in (getattr(config, "layer_types", None) or ())
    collator = PairCollator(
        tokenizer.pad_token_id,
        shared=config._attn_implementation == "sdpa",
        window=config.sliding_window if sliding else None,
    )
    continues = hasattr(model, "peft_config")
    start = learning(model)
    trainer = RpoTrainer(
        alpha=settings.rpo_alpha,
        model=model,
        args=DPOConfig(**trainer_arguments(settings, work), beta=settings.beta),
        train_dataset=pairs,
        processing_class=tokenizer,
        peft_config=None if continues or settings.lora is None else lora_config(settings.lora),
        data_collator=collator,
    )
    set_up_adapters(trainer, start)
    trainer.add_callback(Finite(work / LAST_GOOD))
    trainer.falling = FallingChosen(work / LAST_GOOD, settings.on_falling_chosen, say)
    trainer.add_callback(trainer.falling)
    trainer.add_callback(Log(work / "training" / "log.jsonl", trainer.is_world_process_zero()))
    trainer.add_callback(Samples(work / "training" / "samples.jsonl", tokenizer, pairs))
    add_curves(trainer, settings.trackers, work / "training" / "tensorboard")
    if saved is not None:
        trainer.add_callback(Saved(saved))
    return trainer
