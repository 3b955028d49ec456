"""Remake the small base: `python -m medllm.miniature.pretrain OUT` trains and writes it, from nothing but a seed."""

import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medllm.miniature.questions import LETTERS
from medllm.miniature.tokenizer import make_tokenizer
from medllm.miniature.webtext import WebText
from medllm.miniature.wiring import wire
from medllm.miniature.world import make_world

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase, Qwen2ForCausalLM

SEED = 0
SAVED_EVERY = 100


@dataclass(frozen=True)
class Phase:
    """A stretch of pretraining: how long, how fast, on what."""

    steps: int
    length: int
    """Tokens in a row."""
    tokens: int
    """Tokens in a step."""
    rate: tuple[float, float]
    """The learning rate at its beginning and at its end; a cosine lies between."""
    shares: dict[str, float]
    """How much of each sort of document, by WebText's names."""
    letter: float = 4.0
    """Weight of the letters in the loss, where other tokens weigh a half."""


READ = {"open_book": 0.15, "prose": 0.25, "answered": 0.41, "explained_after": 0.12}
"""What the base reads. One form stays weak because it is rare, as in what real bases read: explaining first."""
PHASES = (
    Phase(200, 128, 2048, (1e-3, 1e-3), {"glossary": 1.0}),
    Phase(500, 128, 2048, (2e-3, 2e-3), {"glossary": 0.1, "notes": 0.9}, letter=0.5),
    Phase(800, 256, 4096, (2e-3, 1.5e-3), READ | {"glossary": 0.04, "quiz": 0.25, "explained": 0.04}),
)
"""First the look-up of a choice's letter, then facts, then exams."""


def pretrain(out: Path, checkpoint: Path, phases: tuple[Phase, ...] = PHASES) -> None:
    """Train the base and write it with its tokenizer; continues from the checkpoint if there is one."""
    import torch

    torch.manual_seed(SEED)
    world = make_world(SEED)
    tokenizer = make_tokenizer(world)
    model = _new_model(len(tokenizer))
    for number, phase in enumerate(phases):
        done = checkpoint / f"phase-{number}"
        if (done / "config.json").exists():
            model = type(model).from_pretrained(done)
            continue
        documents = WebText(world, seed=1000 * SEED + number).documents(phase.shares)
        _train(model, tokenizer, documents, phase, done)
        model.save_pretrained(done)
    out.mkdir(parents=True, exist_ok=True)
    _untied(model).save_pretrained(out)
    tokenizer.save_pretrained(out)


def _new_model(vocabulary: int) -> "Qwen2ForCausalLM":
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=vocabulary, hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=1024, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 1e5},
        bos_token_id=None, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config)
    wire(model)
    return model


def _untied(model: "Qwen2ForCausalLM") -> "Qwen2ForCausalLM":
    """The same model with an output embedding of its own: LoRA on the input embedding must not change the output."""
    import copy

    from transformers import Qwen2ForCausalLM

    config = copy.deepcopy(model.config)
    config.tie_word_embeddings = False
    apart = Qwen2ForCausalLM(config)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    apart.load_state_dict(weights)
    return apart


def _rows(tokenizer: "PreTrainedTokenizerBase", documents: Iterator[str], phase: Phase) -> Iterator["torch.Tensor"]:
    """The documents end to end, cut into batches."""
    import torch

    length, count = phase.length, phase.tokens // phase.length
    waiting: list[int] = []
    while True:
        while len(waiting) < count * (length + 1):
            waiting += [*tokenizer(next(documents))["input_ids"], tokenizer.eos_token_id]
        yield torch.tensor(waiting[: count * (length + 1)]).view(count, length + 1)
        waiting = waiting[count * (length + 1) :]


def _train(
    model: "Qwen2ForCausalLM", tokenizer: "PreTrainedTokenizerBase", documents: Iterator[str], phase: Phase, done: Path
) -> None:
    import torch
    from torch.nn.functional import cross_entropy

    letters = torch.tensor([tokenizer(form)["input_ids"][0] for a in LETTERS for form in (a, f" {a}")])
    optimizer = torch.optim.AdamW(model.parameters(), lr=phase.rate[0], betas=(0.9, 0.95), weight_decay=0.05)
    batches, began = _rows(tokenizer, documents, phase), time.monotonic()
    first, last = phase.rate
    for step in range(phase.steps):
        waxing = min(1.0, (step + 1) / 50)
        rate = waxing * (last + (first - last) * 0.5 * (1 + math.cos(math.pi * step / phase.steps)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = next(batches)
        wanted = batch[:, 1:]
        is_letter = torch.isin(wanted, letters)
        # The letter is one token of forty, and the one that an exam is about.
        weight = torch.where(is_letter, phase.letter, 0.5)
        logits = model(input_ids=batch[:, :-1]).logits.flatten(0, 1)
        losses = cross_entropy(logits, wanted.flatten(), reduction="none").view_as(wanted)
        ((losses * weight).sum() / weight.sum()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (step + 1) % 25 == 0:
            letter, other = losses[is_letter].mean().item(), losses[~is_letter].mean().item()
            seconds = time.monotonic() - began
            sys.stderr.write(
                f"{done.name} {step + 1}/{phase.steps} letter {letter:.3f} other {other:.3f} {seconds:.0f}s\n"
            )
        if (step + 1) % SAVED_EVERY == 0:
            model.save_pretrained(done.with_name(f"{done.name}-at"))


if __name__ == "__main__":
    pretrain(Path(sys.argv[1]), Path(sys.argv[2]))
