"""Group relative policy optimization on TRL's GRPOTrainer (Shao et al., arXiv:2402.03300), with rewards by rules.

The prompts are those of an evaluation, token for token: TRL is given the keys of the questions in the place of their
texts. Each part of the reward is a reward function of its own, with TRL's `reward_weights`.
"""

from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from transformers import PrinterCallback, ProgressCallback
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import RepeatSampler

from medllm.errors import DataError, TrainingError
from medllm.generation.engine.batching import PromptReader
from medllm.recipe.grpo import Grpo
from medllm.training.callbacks import LAST_GOOD, StopOnNonFinite, TrainingLog, add_curves
from medllm.training.checkpointing import Checkpoints
from medllm.training.load import (
    TrainingStart,
    learning,
    processes,
    set_up_adapters,
    set_up_optimizer,
    trainer_arguments,
)
from medllm.training.rewards import RewardScorer, RolloutTask, ScoredCompletion
from medllm.training.rollout_watch import RolloutWatch, Row, column_of
from medllm.training.targets import lora_config
from medllm.weights.load import end_tokens

SAME_NAME = {
    *("num_generations", "max_completion_length", "mask_truncated_completions", "temperature", "top_p"),
    *("num_iterations", "beta", "epsilon", "epsilon_high", "loss_type", "scale_rewards"),
}
"""Keys that a recipe and TRL's GRPOConfig share, with the same values."""
VLLM = {"vllm_mode", "vllm_server_base_url", "vllm_gpu_memory_utilization", "vllm_tensor_parallel_size"}


class EpochOrder(RepeatSampler):  # type: ignore[misc]
    """TRL's order of questions, drawn by seed and epoch, so a resumed training has the same."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of this epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(self.seed + getattr(self, "epoch", 0))
        yield from super().__iter__()


class GrpoTrainer(GRPOTrainer):  # type: ignore[misc]
    """TRL's trainer on the questions' own tokens; what it computes is TRL's."""

    def __init__(self, *, scorer: RewardScorer, watch: RolloutWatch, **kwargs: Any) -> None:  # noqa: ANN401  TRL's
        self.scorer = scorer
        self.watch = watch
        super().__init__(**kwargs)

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        """Return the tokens of the questions that TRL's prompts name."""
        return [list(self.scorer.tasks[key].tokens) for key in prompts], None, {}

    def _get_train_sampler(self, dataset: Dataset | None = None) -> EpochOrder:
        return EpochOrder(
            data_source=self.train_dataset if dataset is None else dataset,
            mini_repeat_count=self.num_generations,
            batch_size=self.args.generation_batch_size // self.num_generations,
            repeat_count=self.num_iterations * self.args.steps_per_generation,
            seed=self.args.seed,
        )

    def _prepare_inputs(self, generation_batch: Any) -> Any:  # noqa: ANN401  as TRL has it
        """Count the micro-batches of earlier runs, too: TRL would begin at 0, and write at other updates."""
        if self._buffered_inputs is None:
            self._step = self.state.global_step * self.args.gradient_accumulation_steps
        return super()._prepare_inputs(generation_batch)

    def _calculate_rewards(
        self,
        inputs: Any,  # noqa: ANN401  as TRL has them
        prompts: list[str],
        completions: Any,  # noqa: ANN401
        completion_ids_list: list[list[int]],
    ) -> torch.Tensor:
        """Compute TRL's table of rewards (completions x parts, of all devices), and write down what was rewarded."""
        rewards: torch.Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        scored = self.scorer.score(prompts, completion_ids_list)
        rows = [_row(key, graded, self.scorer.weights) for key, graded in zip(prompts, scored, strict=True)]
        self.watch.record(self.state.global_step + 1, gather_object(rows))
        return rewards

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  as TRL has it
        """Write none: the pipeline writes the card."""


def _row(key: str, scored: ScoredCompletion, weights: Mapping[Any, float]) -> Row:
    reply, record = scored.reply, scored.record
    return {
        "question": key,
        "reward": sum(weight * scored.parts[part] for part, weight in weights.items()),
        **{column_of(part): value for part, value in scored.parts.items()},
        "status": record.status,
        "answer": record.answer,
        "gold": record.gold,
        "finish_reason": reply.finish_reason,
        "tokens": reply.completion_tokens,
        "completion": reply.text,
        "reasoning": reply.reasoning,
    }


def refuse_without_gpu(settings: Grpo) -> None:
    """Raise TrainingError where vLLM is to write the completions, and no GPU or no vLLM is here."""
    if not settings.use_vllm:
        return
    if not torch.cuda.is_available():
        raise TrainingError(
            "training.vllm-needs-gpu",
            "grpo.use_vllm: vLLM needs a GPU, and torch finds none here. Remove it: transformers writes the "
            "completions.",
        )
    if find_spec("vllm") is None:
        raise TrainingError(
            "training.no-vllm",
            "grpo.use_vllm: the package `vllm` is not installed here. Run `pip install 'trl[vllm]'` (for a Job write "
            "`jobs: {packages: [vllm]}`), or remove it.",
        )


def refuse_small_data(settings: Grpo, questions: int) -> None:
    """Raise DataError where the questions do not fill one update: TRL would train on none."""
    needed = settings.total_batch_size // settings.num_generations
    if questions < needed:
        raise DataError(
            "training.too-few-questions",
            f"grpo: {questions} questions, and an update takes {needed} ({settings.total_batch_size} completions, "
            f"{settings.num_generations} of each question). Lower `total_batch_size`, raise `num_generations`, or add "
            "questions.",
        )


def _arguments(settings: Grpo, work: Path, model: Any, rows: int) -> GRPOConfig:  # noqa: ANN401
    common = trainer_arguments(settings, work, model, rows)
    del common["max_length"]
    vllm = {"use_vllm": True, "vllm_max_model_length": settings.max_length, **settings.model_dump(include=VLLM)}
    return GRPOConfig(
        **common,
        **settings.model_dump(include=SAME_NAME),
        **(vllm if settings.use_vllm else {}),
        reward_weights=list(settings.rewards.weights().values()),
        disable_dropout=True,  # the policy that writes is the one that learns
    )


def make_trainer(
    start: TrainingStart,
    tasks: Mapping[str, RolloutTask],
    reader: PromptReader,
    settings: Grpo,
    work: Path,
    *,
    say: Callable[[str], None],
) -> GrpoTrainer:
    """Everything wired, ready to train or to go on, on the questions of `tasks`, by their keys."""
    model, tokenizer = start.model, start.tokenizer
    ends = end_tokens(tokenizer, start.base.folder) | reader.ends
    bare = model.get_base_model() if hasattr(model, "peft_config") else model
    for part in (model, bare):
        part.generation_config.eos_token_id = sorted(ends)
    scorer = RewardScorer(settings, tasks, reader, ends)
    numbers = learning(model)
    chief = bool(processes().is_main_process)
    trainer = GrpoTrainer(
        scorer=scorer,
        watch=RolloutWatch(settings, work / "training", chief=chief),
        model=model,
        reward_funcs=scorer.functions(),
        args=_arguments(settings, work, model, len(tasks)),
        train_dataset=Dataset.from_dict({"prompt": list(tasks)}),
        processing_class=tokenizer,
        peft_config=None
        if hasattr(model, "peft_config") or settings.lora is None
        else lora_config(settings.lora, model),
    )
    set_up_adapters(trainer, numbers)
    set_up_optimizer(trainer, settings)
    for prints in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(prints)
    trainer.add_callback(trainer.watch)
    trainer.add_callback(StopOnNonFinite(trainer, work / LAST_GOOD))
    trainer.add_callback(TrainingLog(work / "training" / "log.jsonl", chief))
    add_curves(trainer, settings.report_to, work / "training" / "tensorboard")
    trainer.checkpoints = Checkpoints(trainer, settings.save_minutes)
    trainer.add_callback(trainer.checkpoints)
    say(
        f"{len(tasks)} questions; rewards: {', '.join(f'{part} {weight:g}' for part, weight in scorer.weights.items())}"
    )
    return trainer
