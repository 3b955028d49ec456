"""The watch over a run: its log, its samples, and the signs at which it is stopped with what stands kept."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import TrainerCallback

from medllm.errors import TrainingError
from medllm.weights.spent import disk_is_full, memory_is_full

LAST_GOOD = "last_good"
FALLEN_LOGS = 3


def keep_lines(path: Path, step: int) -> list[int]:
    """Leave in a file of JSON lines only those of steps that stand, when a training goes on from one of them.

    Their steps are given back. A line that a kill cut off is of a step that is taken once more.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    told = [(json.loads(line)["step"], line) for line in lines if line.endswith("}")]
    kept = [(at, line) for at, line in told if at <= step]
    aside = path.with_name(path.name + ".part")
    aside.write_text("".join(f"{line}\n" for _, line in kept), "utf-8")
    aside.replace(path)
    return [at for at, _ in kept]


class Log(TrainerCallback):  # type: ignore[misc]
    """Each line of the trainer's log as JSONL; after a restart the lines of lost steps are dropped, not doubled."""

    def __init__(self, path: Path, chief: bool) -> None:
        self.path = path
        self.chief = chief

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Keep the lines of the steps that stand."""
        if self.chief:
            keep_lines(self.path, state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:  # noqa: ANN401
        """Append one line."""
        if self.chief and "loss" in logs:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step, **logs}) + "\n")


class Finite(TrainerCallback):  # type: ignore[misc]
    """Stops before an update that is not a number could reach the weights."""

    def __init__(self, keep: Path) -> None:
        self.keep = keep

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Look at every gradient; the weights are still those of the step before."""
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        norms = torch._foreach_norm(gradients)
        if not all(bool(torch.isfinite(norm).all()) for norm in norms):
            stop_with(model, self.keep, f"step {state.global_step + 1}: the loss or a gradient is not a number")


def stop_with(model: Any, keep: Path, fault: str) -> None:  # noqa: ANN401  a PeftModel, bare or wrapped
    """Keep the adapter as it stands and stop."""
    getattr(model, "module", model).save_pretrained(str(keep), selected_adapters=["default"])
    raise TrainingError(
        f"{fault}. The adapter as it was before stands in {keep}, the checkpoints beside it. Lower `learning_rate` "
        "(or raise `warmup`) and run again."
    )


class FallingChosen(TrainerCallback):  # type: ignore[misc]
    """Notices when the chosen answers have become less likely than under the reference: the known failure of DPO."""

    def __init__(self, keep: Path, on_falling: Literal["warn", "stop"], say: Callable[[str], None]) -> None:
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
        fault = (
            f"step {state.global_step}: the chosen answers are less likely than under the reference, "
            f"{FALLEN_LOGS} log lines in a row (a higher `rpo_alpha` or a lower `learning_rate` holds them up)"
        )
        if self.on_falling == "stop":
            stop_with(model, self.keep, fault)
        self.say(fault)


class Saved(TrainerCallback):  # type: ignore[misc]
    """Hands each finished checkpoint on, so that whoever runs the stage may store it elsewhere."""

    def __init__(self, saved: Callable[[Path], None]) -> None:
        self.saved = saved

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Give the folder of the checkpoint just written."""
        if state.is_world_process_zero:
            self.saved(Path(args.output_dir) / f"checkpoint-{state.global_step}")


def last_checkpoint(folder: Path) -> Path | None:
    """Find the newest checkpoint that was written to its end; the trainer's state is the last thing written."""
    whole = [
        path.parent
        for path in folder.glob("checkpoint-*/trainer_state.json")
        if _is_json(path) and (path.parent / "optimizer.pt").is_file() | any(path.parent.glob("*optimizer*"))
    ]
    return max(whole, key=lambda path: int(path.name.rsplit("-", 1)[1]), default=None)


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text("utf-8"))
    except ValueError:
        return False
    return True


@contextmanager
def worded(stage: str, work: Path) -> Iterator[None]:
    """Say in one line what a full disk or a full memory means here, and what to turn."""
    try:
        yield
    except Exception as fault:
        if memory_is_full(fault):
            raise TrainingError(
                f"{stage}: out of memory. Lower `per_device_batch_size` or `max_length`, keep `gradient_checkpointing` "
                f"on, or set `quantization: nf4`. Run again to go on from the last checkpoint in {work}."
            ) from fault
        if disk_is_full(fault):
            raise TrainingError(
                f"{stage}: no space left where {work} lies. Free some; run again to go on from the last checkpoint."
            ) from fault
        raise
