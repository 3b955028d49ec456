"""Which engine answers for a model here: the one that is named, or with `auto` the quick one where it proves right."""

import sys
from pathlib import Path
from typing import Any

import torch

from medllm.errors import ModelError
from medllm.generation.engine.local import LocalGenerator
from medllm.generation.engine.transformers import TransformersGenerator
from medllm.generation.types import BASE, Request
from medllm.recipe.hardware import PROVEN
from medllm.recipe.servers import AUTO, LOCAL, TRANSFORMERS
from medllm.weights.checkpoint import Checkpoint
from medllm.weights.load import PROBE, release
from medllm.weights.probing import agrees, apart, narrowed

COMPARED = 8
"""Greedy tokens that are compared."""
OWN = ("解説:", "Question: which of these five is right?\nAnswer:")
"""What follows the shared beginning in the two prompts of the check."""
NEAR = {torch.float32: 1e-3}
ROUNDED = 0.25
"""How far below the likeliest token's score another may be that 16 bits take for the likeliest."""


def open_generator(
    engine: str,
    base: Path,
    adapters: dict[str, Path] | None,
    **options: Any,  # noqa: ANN401  those of both engines
) -> LocalGenerator | TransformersGenerator:
    """Load a model with its adapters for `local`, `transformers` or `auto`; `auto` reports its choice on stderr.

    Raises ModelError where `local` is named for a model that the local engine cannot follow.
    """
    if engine == TRANSFORMERS:
        return TransformersGenerator(base, adapters, **options)
    if engine != AUTO and _is_proven(base):
        return LocalGenerator(base, adapters, **options)
    quick, reason = _quick(engine, base, adapters, options)
    name = Checkpoint(base).name
    if engine != AUTO:
        if quick is not None:
            return quick
        raise ModelError(
            "generation.local-differs",
            f"{base}: the engine `local` does not suit {name}, because {reason}. Set `engine: auto`, or `engine: "
            "transformers`.",
        )
    if quick is not None:
        sys.stderr.write(f"engine: local for {name} (its replies are those of plain `generate`)\n")
        return quick
    sys.stderr.write(f"engine: transformers for {name}, because {reason}\n")
    release()
    return TransformersGenerator(base, adapters, **options)


def _is_proven(base: Path) -> bool:
    return Checkpoint(base).config.get("model_type") in PROVEN


def _quick(
    engine: str, base: Path, adapters: dict[str, Path] | None, options: dict[str, Any]
) -> tuple[LocalGenerator | None, str | None]:
    """Load the local engine if it can follow the model, else return why it cannot."""
    try:
        quick = LocalGenerator(base, adapters, **options)
        reason = difference(quick)
    # An architecture that the local engine does not know fails in its own way, at any step.
    except Exception as fault:
        if isinstance(fault, ModelError) and (engine == LOCAL or fault.code.startswith("weights.")):
            raise  # what is wrong with the files is wrong for every engine
        text = (str(fault).strip() or type(fault).__name__).splitlines()[0]
        return None, f"the local engine cannot follow it ({type(fault).__name__}: {text[:200]})"
    quick.read = quick.written = 0  # what the check read and wrote belongs to no reply
    return (None, reason) if reason else (quick, None)


def difference(quick: LocalGenerator) -> str | None:
    """Compare the local engine with plain `generate` on two short prompts, with and without their shared beginning.

    Returns None where they agree: the tokens are equal, or the first other one is as likely but for rounding, and so
    are the logits at each position. Where attention has windows, they are narrowed for a second look, so that the
    prompts are longer than they are.
    """
    reason = _difference(quick)
    quick.forget()
    with narrowed(quick.model) as there_are_windows:
        if reason is None and there_are_windows:
            reason = _difference(quick)
            quick.forget()
    return reason


def _difference(quick: LocalGenerator) -> str | None:
    models = [*([] if quick.changed_base else [BASE]), *quick.adapters[:1]]
    texts = [PROBE + own for own in OWN]
    nearest = NEAR.get(quick.model.dtype, ROUNDED)
    expected = {
        (model, text): quick.continue_plainly(quick.reader.words.prompt(text), model, COMPARED)
        for model in models
        for text in texts
    }
    for model in models:
        ours, theirs = quick.logits(texts[0], model), quick.logits_plainly(texts[0], model)
        if not agrees(apart(ours, theirs), torch.ones(len(theirs), device=theirs.device), quick.model.dtype):
            return "the local engine's logits are not those of the model's own attention"
    for shared in (0, len(PROBE)):
        asked = [
            Request(key=f"{number}", model=model, text=text, shared=shared, max_new_tokens=COMPARED)
            for number, (model, text) in enumerate(expected)
        ]
        replies = {reply.key: reply for reply in quick.generate(asked)}
        for request in asked:
            tokens, scores = expected[request.model, request.text]
            ours = replies[request.key].tokens
            if not _alike(ours, tokens, scores, quick.ends, nearest):
                how = "with shared examples" if shared else "alone"
                return f"the local engine's reply to a prompt {how} is not that of plain `generate`"
    return None


def _alike(
    ours: tuple[int, ...], tokens: list[int], scores: list[torch.Tensor], ends: frozenset[int], nearest: float
) -> bool:
    for at, (token, score) in enumerate(zip(tokens, scores, strict=True)):
        if at == len(ours):
            return token in ends
        if ours[at] != token:
            return bool(score[token] - score[ours[at]] < nearest)
        if token in ends:
            return False
    return True
