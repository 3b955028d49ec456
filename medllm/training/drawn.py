"""What a person looks at while a model learns: curves, and what the model answers now."""

import json
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, TrainerCallback
from transformers.integrations import TensorBoardCallback

from medllm.training.callbacks import keep_lines

SAMPLED_PROMPTS = 2
SAMPLED_TOKENS = 96


def add_curves(trainer: Any, trackers: tuple[str, ...], folder: Path) -> None:  # noqa: ANN401  one of TRL's trainers
    """Draw TensorBoard's curves into the folder that is kept; trackio is the trainer's own affair."""
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
        for prompt in self.prompts:
            ids = torch.tensor([prompt], device=model.device)
            with torch.no_grad():
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
