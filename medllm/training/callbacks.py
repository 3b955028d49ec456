"""Callbacks of a run: its log, its samples, and the signs at which it stops and keeps what is done."""

import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import TrainerCallback

from medllm.errors import TrainingError
from medllm.files import write_text
from medllm.resource_errors import disk_is_full, memory_is_full

LAST_GOOD = "last_good"
FALLEN_LOGS = 3


def keep_lines(path: Path, step: int) -> list[int]:
    """Keep in a file of JSON lines only those up to the step from which a training resumes.

    Return the steps of the kept lines. A line that a kill cut off is of a step that is taken once more.
    """
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    told = [(json.loads(line)["step"], line) for line in lines if line.endswith("}")]
    kept = [(at, line) for at, line in told if at <= step]
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

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:  # noqa: ANN401
        """Append what was logged as one line of JSON."""
        if self.chief and "loss" in logs:
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
        model.save_pretrained(str(keep), selected_adapters=["default"], state_dict=state)
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


class Saved(TrainerCallback):  # type: ignore[misc]
    """A callback that hands each finished checkpoint on, so that the caller may store it elsewhere."""

    def __init__(self, saved: Callable[[Path], None]) -> None:
        self.saved = saved

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Give the folder of the checkpoint just written."""
        if state.is_world_process_zero:
            self.saved(Path(args.output_dir) / f"checkpoint-{state.global_step}")


def last_checkpoint(folder: Path) -> Path | None:
    """Find the newest checkpoint that every process wrote to its end; the first writes the trainer's state last."""
    whole = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json") if _is_json(path)]
    whole = [path for path in whole if _has_optimizer(path) and _has_draws(path)]
    return max(whole, key=lambda path: int(path.name.rsplit("-", 1)[1]), default=None)


def _has_optimizer(checkpoint: Path) -> bool:
    """Whether the optimizer's state is there; of a shared one, its table of contents is written after all shares."""
    shared = [path for path in checkpoint.glob("optimizer_*") if path.is_dir()]
    if shared:
        return all((path / ".metadata").is_file() for path in shared)
    return (checkpoint / "optimizer.pt").is_file() or any(checkpoint.glob("*optimizer*"))


def _has_draws(checkpoint: Path) -> bool:
    """Whether the random states, of which each process writes its own, are whole."""
    return all(zipfile.is_zipfile(path) for path in checkpoint.glob("rng_state*.pth"))


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text("utf-8"))
    except ValueError:
        return False
    return True


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
                "training.disk-full",
                f"{stage}: the disk of {work} is full. Free some space and run again to continue from the last "
                "checkpoint.",
            ) from fault
        raise
