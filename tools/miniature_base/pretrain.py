"""Remake the small base from a seed: `python -m tools.miniature_base.pretrain OUT` trains and writes it."""

import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medllm.miniature.corpora import WebText
from medllm.miniature.exams import LETTERS
from medllm.miniature.world import make_world
from tools.miniature_base.lookup import lay_lookup
from tools.miniature_base.tokenizer import make_tokenizer
from tools.miniature_base.wiring import wire

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase, Qwen2ForCausalLM

SEED = 0
LAYERS = 5
BATCH, LENGTH = 4, 256
"""Rows in a step, tokens in a row."""
ASKED = 0.02
"""Weight of a question's own tokens in the loss: nobody can foretell them, and they would drown what can be learnt."""
LETTER = 2.0
"""Weight of an answer's letter, of which there is one in forty tokens."""


@dataclass(frozen=True)
class Phase:
    """A stretch of pretraining: how long, how fast, on what."""

    steps: int
    rate: tuple[float, float]
    """The learning rate at its beginning and at its end; a cosine lies between."""
    shares: dict[str, float]
    """How much of each sort of document, by WebText's names."""
    last_only: bool = False
    """Lay the look-up first, and train the last layer alone, lest the facts be lost while it settles."""


PHASES = (
    Phase(1600, (2e-3, 1e-3), {"glossary": 0.08, "short": 0.27, "named": 0.40, "prose": 0.25}),
    Phase(300, (1e-3, 1e-3), {"glossary": 0.08, "short": 0.05, "answered": 0.70, "prose": 0.17}, last_only=True),
    Phase(
        2000,
        (5e-4, 1e-4),
        {
            "glossary": 0.04,
            "short": 0.04,
            "answered": 0.541,
            "prose": 0.19,
            "open_book": 0.10,
            "explained_after": 0.08,
            "explained": 0.009,
        },
    ),
)
"""First the facts, by name; then the letters; then all that a base reads. One form stays weak because it is rare, as in
what real bases read: explaining first. Books that print the explanation below the answer teach to name the disease that
is asked about."""


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
        if phase.last_only:
            lay_lookup(model, tokenizer, world)
        documents = WebText(world, seed=1000 * SEED + number).documents(phase.shares)
        _train(model, tokenizer, documents, phase, done)
        model.save_pretrained(done)
    out.mkdir(parents=True, exist_ok=True)
    _untied(model).save_pretrained(out)
    tokenizer.save_pretrained(out)


def _new_model(vocabulary: int) -> "Qwen2ForCausalLM":
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=vocabulary, hidden_size=128, intermediate_size=384, num_hidden_layers=LAYERS, num_attention_heads=4,
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


def _rows(tokenizer: "PreTrainedTokenizerBase", documents: Iterator[str]) -> Iterator["torch.Tensor"]:
    """The documents end to end, cut into batches."""
    import torch

    waiting: list[int] = []
    while True:
        while len(waiting) < BATCH * (LENGTH + 1):
            waiting += [*tokenizer(next(documents))["input_ids"], tokenizer.eos_token_id]
        yield torch.tensor(waiting[: BATCH * (LENGTH + 1)]).view(BATCH, LENGTH + 1)
        waiting = waiting[BATCH * (LENGTH + 1) :]


def _optimizers(model: "Qwen2ForCausalLM") -> list["torch.optim.Optimizer"]:
    """Muon for the matrices, AdamW for the rest."""
    import torch

    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    matrices = [p for name, p in trained.items() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in trained.items() if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, momentum=0.95, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, betas=(0.9, 0.95), weight_decay=0.0),
    ]


@dataclass(frozen=True)
class _Marks:
    """The tokens by which the loss tells a question from its answer."""

    asked: "torch.Tensor"
    told_tokens: "torch.Tensor"
    letters: "torch.Tensor"

    @classmethod
    def of(cls, tokenizer: "PreTrainedTokenizerBase") -> "_Marks":
        import torch

        def first(*words: str) -> "torch.Tensor":
            return torch.tensor([tokenizer(word)["input_ids"][0] for word in words])

        letters = [form for a in LETTERS for form in (a, f" {a}")]
        return cls(first("Question"), first("Answer", "Explanation"), first(*letters))

    def weights(self, batch: "torch.Tensor") -> "torch.Tensor":
        """Weight in the loss of each token but a row's first."""
        import torch

        places = torch.arange(batch.shape[1])
        asked = torch.where(torch.isin(batch, self.asked), places, -1).cummax(1).values
        told_tokens = torch.where(torch.isin(batch, self.told_tokens), places, -1).cummax(1).values
        # A row that begins amid a document is taken for a question until a mark tells.
        asking = ((asked > told_tokens) | ((asked < 0) & (told_tokens < 0)))[:, 1:]
        heard = torch.where(torch.isin(batch[:, 1:], self.letters), LETTER, 1.0)
        return torch.where(asking, ASKED, heard)


def _train(
    model: "Qwen2ForCausalLM", tokenizer: "PreTrainedTokenizerBase", documents: Iterator[str], phase: Phase, done: Path
) -> None:
    import torch
    from torch.nn.functional import cross_entropy

    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not phase.last_only or f"layers.{LAYERS - 1}." in name)
    optimizers, marks = _optimizers(model), _Marks.of(tokenizer)
    batches, began = _rows(tokenizer, documents), time.monotonic()
    first, last = phase.rate
    for step in range(phase.steps):
        waxing = min(1.0, (step + 1) / 30)
        rate = waxing * (last + (first - last) * 0.5 * (1 + math.cos(math.pi * step / phase.steps)))
        batch = next(batches)
        weight = marks.weights(batch)
        logits = model(input_ids=batch[:, :-1]).logits.flatten(0, 1)
        losses = cross_entropy(logits, batch[:, 1:].flatten(), reduction="none").view_as(weight)
        loss = (losses * weight).sum() / weight.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
        model.zero_grad(set_to_none=True)
        if (step + 1) % 50 == 0:
            seconds = time.monotonic() - began
            sys.stderr.write(f"{done.name} {step + 1}/{phase.steps} loss {loss.item():.3f} {seconds:.0f}s\n")


if __name__ == "__main__":
    pretrain(Path(sys.argv[1]), Path(sys.argv[2]))
