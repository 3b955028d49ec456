"""Callbacks of a training: its log, curves and samples, and the signs at which it stops and keeps what is done."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, TrainerCallback
from transformers.integrations import TensorBoardCallback

from medllm.errors import TrainingError, disk_is_full, memory_is_full
from medllm.files import write_text
from medllm.training.devices import is_sharded
from medllm.training.updates import is_figure
from medllm.work_progress import WorkProgress, report_progress

LAST_GOOD = "last_good"
FALLEN_LOGS = 3
PROBE_TOKENS = 16
MAX_SHIFT = 0.05
"""How far sharding may move the logits, as a part of their own size: a sharded adapter computes in bfloat16."""
SAMPLED_PROMPTS = 2
SAMPLED_TOKENS = 96


def keep_lines(path: Path, step: int) -> list[int]:
    """Keep in a file of JSON lines only those up to the step from which a training resumes.

    Return the steps of the kept lines. A line that a kill cut off is of a step that is taken once more.
    """
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    steps = [(json.loads(line)["step"], line) for line in lines if line.endswith("}")]
    kept = [(at, line) for at, line in steps if at <= step]
    write_text(path, "".join(f"{line}\n" for _, line in kept))
    return [at for at, _ in kept]


class TrainingLog(TrainerCallback):  # type: ignore[misc]
    """Each line of the trainer's log as JSONL; after a restart the lines of lost steps are dropped, not doubled."""

    def __init__(self, path: Path, chief: bool) -> None:
        self.path = path
        self.chief = chief

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Keep the lines up to the step from which the training resumes."""
        if self.chief:
            keep_lines(self.path, state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Report how many updates are done."""
        if self.chief:
            report_progress(WorkProgress("training", state.global_step, state.max_steps, "updates"))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:  # noqa: ANN401
        """Append what was logged as one line of JSON."""
        if self.chief and "eval_loss" in logs:
            logs = {name: value for name, value in logs.items() if is_figure(name) or name == "epoch"}
        if self.chief and ("loss" in logs or "eval_loss" in logs):
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step, **logs}) + "\n")


class StopOnNonFinite(TrainerCallback):  # type: ignore[misc]
    """Stops before an update that is not a number could reach the weights.

    In float16 an overflow now and then is how its scaler finds the right scale: it leaves such an update out by itself,
    which is counted in `skipped`. Only when the scale falls below 1 is there no number left to find.
    """

    def __init__(self, trainer: Any, keep: Path) -> None:  # noqa: ANN401  one of our trainers
        self.trainer = trainer
        self.keep = keep
        self.skipped = 0

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Look at every gradient; the weights are still those of the step before."""
        if self.trainer.accelerator.scaler is None and not self._all_finite(model, args):
            error = TrainingError(
                "training.not-finite",
                f"step {state.global_step + 1}: the loss or a gradient is not a number. {self.keep} holds the adapter "
                "of the step before. Lower `learning_rate` (or raise `warmup_ratio`) and run again.",
            )
            keep_and_stop(self.trainer, self.keep, error)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Count what float16's scaler left out, and stop where it finds no scale."""
        scaler = self.trainer.accelerator.scaler
        if scaler is None or not self.trainer.accelerator.optimizer_step_was_skipped:
            return
        self.skipped += 1
        if scaler.get_scale() < 1:
            error = TrainingError(
                "training.not-finite-float16",
                f"step {state.global_step + 1}: in float16 the loss or a gradient is not a number at any scale. "
                f"{self.keep} holds the adapter of the step before. Set `dtype: bfloat16`, or lower `learning_rate` "
                "(or raise `warmup_ratio`), and run again.",
            )
            keep_and_stop(self.trainer, self.keep, error)

    def _all_finite(self, model: Any, args: Any) -> bool:  # noqa: ANN401
        """Whether every gradient is, on every device: where they are shared out, each sees only its own part."""
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        parts = [getattr(gradient, "_local_tensor", gradient) for gradient in gradients]
        norms = torch._foreach_norm([part for part in parts if part.numel()])
        finite = torch.stack([torch.isfinite(norm).all().to(args.device) for norm in norms]).all()
        if self.trainer.is_fsdp_enabled:
            finite = self.trainer.accelerator.reduce(finite.float(), "sum") == args.world_size
        return bool(finite)


def keep_and_stop(trainer: Any, keep: Path, error: TrainingError) -> None:  # noqa: ANN401  one of our trainers
    """Save the adapter as it is now into `keep` and raise the error; one process writes what all have gathered."""
    state = gather_sharded_state(trainer)
    if trainer.is_world_process_zero():
        model = trainer.accelerator.unwrap_model(trainer.model)
        only = {"selected_adapters": ["default"]} if hasattr(model, "peft_config") else {}
        model.save_pretrained(str(keep), state_dict=state, **only)
    raise error


def gather_sharded_state(trainer: Any) -> dict[str, Any] | None:  # noqa: ANN401  one of our trainers
    """The weights of a model shared over devices, which all processes must help to gather; None where it is not."""
    if not trainer.is_fsdp_enabled:
        return None
    state: dict[str, Any] = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    return state


class WatchChosenReward(TrainerCallback):  # type: ignore[misc]
    """Notices when the chosen answers have become less likely than under the reference: the known failure of DPO."""

    def __init__(
        self,
        trainer: Any,  # noqa: ANN401  one of our trainers
        keep: Path,
        on_falling: Literal["warn", "stop"],
        say: Callable[[str], None],
    ) -> None:
        self.trainer = trainer
        self.keep = keep
        self.on_falling = on_falling
        self.say = say
        self.fallen = 0
        self.first: int | None = None

    def on_log(
        self,
        args: Any,  # noqa: ANN401
        state: Any,  # noqa: ANN401
        control: Any,  # noqa: ANN401
        logs: dict[str, float],
        model: Any = None,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Count the log lines in a row in which the chosen answers' reward is below zero."""
        if "rewards/chosen" not in logs:
            return
        self.fallen = self.fallen + 1 if float(logs["rewards/chosen"]) < 0 else 0
        if self.fallen != FALLEN_LOGS or self.first is not None:
            return
        self.first = state.global_step
        stops = self.on_falling == "stop"
        place = f"; {self.keep} holds the adapter of this step" if stops else ""
        error = TrainingError(
            "training.falling-chosen",
            f"step {state.global_step}: the chosen answers are less likely than under the reference, {FALLEN_LOGS} log "
            f"lines in a row{place}. Raise `rpo_alpha` or lower `learning_rate`.",
        )
        if stops:
            keep_and_stop(self.trainer, self.keep, error)
        self.say(str(error))


def add_curves(trainer: Any, trackers: tuple[str, ...], folder: Path) -> None:  # noqa: ANN401  one of TRL's trainers
    """Draw TensorBoard's curves into the folder that is kept; other trackers are the trainer's own affair."""
    if "tensorboard" in trackers and trainer.is_world_process_zero():
        trainer.add_callback(Curves(folder))


class Curves(TensorBoardCallback):  # type: ignore[misc]
    """TensorBoard's curves; those of steps that are taken once more after a restart are not drawn twice."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Open the file, and have TensorBoard forget what came after the step from which the training resumes."""
        from torch.utils.tensorboard import SummaryWriter

        self.tb_writer = SummaryWriter(str(self.folder), purge_step=state.global_step + 1)
        super().on_train_begin(args, state, control, **kwargs)


class Samples(TrainerCallback):  # type: ignore[misc]
    """At each checkpoint the model answers the same few prompts, so that a person sees degeneration early."""

    def __init__(self, path: Path, tokenizer: PreTrainedTokenizerBase, pairs: Dataset) -> None:
        self.path = path
        self.tokenizer = tokenizer
        self.prompts = [pairs[number]["prompt_ids"] for number in range(min(SAMPLED_PROMPTS, len(pairs)))]

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:  # noqa: ANN401
        """Drop what was answered at checkpoints that are to be reached once more, and answer where a stop came first.

        The last checkpoint was on the disk before its answers were: a run killed in between never gave them.
        """
        if not state.is_world_process_zero:
            return
        steps = keep_lines(self.path, state.global_step)
        if state.global_step > 0 and steps.count(state.global_step) < len(self.prompts):
            keep_lines(self.path, state.global_step - 1)
            self.on_save(args, state, control, model=model)

    def on_save(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:  # noqa: ANN401
        """Answer greedily, which draws no random number and so changes nothing in the run."""
        if args.world_size > 1:  # a sharded model answers only when all processes take part
            return
        model.eval()
        lines = []
        numbers = torch.float16 if args.fp16 else torch.bfloat16
        mixed = torch.autocast(model.device.type, numbers, enabled=bool(args.bf16 or args.fp16))
        for prompt in self.prompts:
            ids = torch.tensor([prompt], device=model.device)
            with torch.no_grad(), mixed:
                answer = model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=SAMPLED_TOKENS,
                    do_sample=False,
                    pad_token_id=self.tokenizer.pad_token_id,
                )[0, len(prompt) :]
            text = self.tokenizer.decode(answer, skip_special_tokens=True)
            lines.append(json.dumps({"step": state.global_step, "completion": text}, ensure_ascii=False))
        model.train()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in lines))


class SameAfterSharding(TrainerCallback):  # type: ignore[misc]
    """Asks the whole model on each device before training begins, and the shared one before the first update."""

    def __init__(self, trainer: Any) -> None:  # noqa: ANN401  one of our trainers
        self.trainer = trainer
        self.ids = torch.arange(1, 1 + PROBE_TOKENS, device=trainer.args.device)[None]
        self.before = self._logits()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Compare; a checkpoint that the run goes on from has changed the adapter, and is not compared."""
        if state.global_step == 0:
            refuse_shifted(self.before, self._logits())

    def _logits(self) -> torch.Tensor:
        model = self.trainer.model
        learns = model.training
        model.eval()
        with torch.no_grad(), self.trainer.compute_loss_context_manager():
            logits: torch.Tensor = model(input_ids=self.ids, use_cache=False).logits.float()
        model.train(learns)
        return logits


def refuse_shifted(before: torch.Tensor, after: torch.Tensor) -> None:
    """Raise TrainingError where logits (two tensors of one shape) moved by more than MAX_SHIFT of their size."""
    apart = float((after - before).norm() / before.norm())
    if not apart <= MAX_SHIFT:
        raise TrainingError(
            "training.sharding-changes-weights",
            f"dividing the model over the devices changed its logits by {apart:.1%}, so its weights are no longer the "
            "base's (bitsandbytes issue 1945). Set `accelerate: ddp`, or `quantization: none`.",
        )


def watch_sharding(trainer: Any) -> None:  # noqa: ANN401  one of our trainers
    """Add the proof where FSDP will share the model out."""
    if is_sharded():
        trainer.add_callback(SameAfterSharding(trainer))


@contextmanager
def translate_resource_errors(stage: str, work: Path) -> Iterator[None]:
    """Explain in one line what a full disk or a full memory means here, and which setting to change."""
    try:
        yield
    except TrainingError:  # of this process, or reported by another one: it has its message
        raise
    except Exception as fault:
        if memory_is_full(fault):
            raise TrainingError(
                "training.no-memory",
                f"{stage}: the memory is full. Lower `per_device_train_batch_size` or `max_length`, keep "
                "`gradient_checkpointing` on, or set `quantization: nf4`. Run again to continue from the last "
                f"checkpoint in {work}.",
            ) from fault
        if disk_is_full(fault):
            raise TrainingError(
                "stage.disk-full",
                f"{stage}: the disk of {work} is full. Free some space and run again to continue from the last "
                "checkpoint.",
            ) from fault
        raise
