"""Checkpoints by the clock and before an end that is asked for, resumed runs, and the adapter that is exported."""

import json
import signal
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from peft import PeftModel
from transformers import GenerationConfig, PreTrainedTokenizerBase, TrainerCallback

from medllm.errors import TrainingError
from medllm.recipe.settings import Cpt, Grpo, Rpo, Sft
from medllm.weights.adapter import Adapter, write_base
from medllm.weights.chat_template import PLAIN, ChatTemplate, begun_template, plain_template
from medllm.weights.checkpoint import Checkpoint
from medllm.weights.load import TextTokens, end_marks
from medllm.weights.merge import concatenate

SETS = ("target_modules", "exclude_modules")


def write_tokenizer(tokenizer: PreTrainedTokenizerBase, out: Path, given: str | None = None) -> None:
    """Write tokenizer, chat template and a generation_config that stops.

    `given` is a recipe's chat template, for a tokenizer that has none of its own; a plain one takes its place.
    """
    ends = end_marks(tokenizer)
    written = tokenizer.chat_template
    if given is not None and (written is None or written.endswith(PLAIN)):
        tokenizer.chat_template = begun_template(tokenizer, given, "chat_template")
        ends = sorted({*ends, *ChatTemplate(tokenizer, tokenizer.chat_template, "chat_template").ends})
    elif written is None:
        tokenizer.chat_template = plain_template(tokenizer, TextTokens(tokenizer).begin)
    tokenizer.save_pretrained(str(out))
    stops = GenerationConfig(
        eos_token_id=ends, pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id
    )
    stops.save_pretrained(str(out))


def save_adapter_only(model: PeftModel, out: Path, state: dict[str, Any] | None = None) -> None:
    """Save the learning adapter only: not TRL's reference, nor the base's embedding that PEFT would add.

    PEFT keeps the names of its targets in a set, whose order is another in each process: the file has them in order.
    """
    model.save_pretrained(str(out), selected_adapters=["default"], save_embedding_layers=False, state_dict=state)
    config = out / "adapter_config.json"
    if config.is_file():  # of several processes one writes it
        values = json.loads(config.read_text("utf-8"))
        values |= {name: sorted(value) for name, value in values.items() if name in SETS and isinstance(value, list)}
        config.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", "utf-8")


def write_adapter(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    base: Checkpoint,
    out: Path,
    state: dict[str, Any] | None = None,
    given: str | None = None,
) -> None:
    """Write the trained adapter alone (TRL's frozen reference is left out), and the base it belongs to.

    `given` is the recipe's chat template.
    """
    save_adapter_only(model, out, state)
    (out / "README.md").unlink(missing_ok=True)
    write_base(out, base)
    write_tokenizer(tokenizer, out, given)


def write_trained(
    trainer: Any,  # noqa: ANN401  one of our trainers
    start: Any,  # noqa: ANN401
    settings: Cpt | Sft | Rpo | Grpo,
    out: Path,
    state: dict[str, Any] | None,
) -> None:
    """Write what was trained, an adapter or a full model, with the tokenizer; `start` is the TrainingStart.

    A full model, which learnt in float32, is written in the numbers of `settings.dtype`. An adapter trained above
    another is written as one with it; the folder `above` holds it alone.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    if hasattr(model, "peft_config"):
        write_adapter(model, start.tokenizer, start.base, out, state, settings.chat_template)
        if start.below is not None:
            save_adapter_only(model, out / "above", state)
            concatenate([start.below, Adapter(out / "above")], out)
            write_base(out, start.base)
        return
    dtype = getattr(torch, settings.dtype)
    if state is not None:  # gathered from the shares of all devices, as it has learnt
        state = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
        model.config.dtype = dtype
    else:
        model.to(dtype)
    model.save_pretrained(str(out), state_dict=state)
    write_tokenizer(start.tokenizer, out, settings.chat_template)


SIGNALS = (signal.SIGUSR1, signal.SIGTERM)
"""At these a training saves at the end of the update at work, and ends."""


class Checkpoints(TrainerCallback):  # type: ignore[misc]
    """Asks for a checkpoint when so many minutes have passed since the last one, and for one and the end at a signal.

    A signal may reach one process only, and clocks differ: so the processes bring their wishes together after each
    update, and the first one's clock counts.
    """

    def __init__(
        self,
        trainer: Any,  # noqa: ANN401  one of our trainers
        minutes: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.trainer = trainer
        self.seconds = minutes * 60
        self.clock = clock
        self.saved = clock()
        self.asked = False
        self.stopped = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear the signals while this holds; outside the main thread, where Python takes none, nothing changes.

        A second one does what it did before.
        """
        before: dict[int, Any] = {}

        def heard(number: int, _: FrameType | None) -> None:
            self.asked = True
            signal.signal(number, before[number])

        if threading.current_thread() is threading.main_thread():
            before = {number: signal.signal(number, heard) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Start the clock of the checkpoints."""
        self.saved = self.clock()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Look at the clock and at what was asked, and agree with the other processes."""
        late = state.is_world_process_zero and self.clock() - self.saved >= self.seconds
        asked, late = self.asked, bool(late)
        if args.world_size > 1:
            flags = torch.tensor([float(asked), float(late)], device=args.device)
            asked, late = (wish > 0 for wish in self.trainer.accelerator.reduce(flags, "sum").tolist())
        if asked or late:
            control.should_save = True
        if asked and state.global_step < state.max_steps:
            control.should_training_stop = self.stopped = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Start the clock again."""
        self.saved = self.clock()

    def end_if_stopped(self, stage: str) -> None:
        """Raise TrainingError when the training ended because it was asked to."""
        if self.stopped:
            raise TrainingError(
                "training.stopped-on-request",
                f"{stage}: stopped on request after update {self.trainer.state.global_step}, which is saved. Run again "
                "to continue from there.",
            )


def run(trainer: Any, stage: str, work: Path) -> Any:  # noqa: ANN401  one of our trainers; what its `train` gives
    """Train, from the last whole checkpoint if there is one, until all processes are done.

    Raises TrainingError when a signal stopped it, after a checkpoint.
    """
    resumed = last_checkpoint(work / "checkpoints")
    with trainer.checkpoints.listening():
        result = trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    trainer.checkpoints.end_if_stopped(stage)
    trainer.accelerator.wait_for_everyone()
    return result


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
