"""Short texts for probes of a model in memory, with its windows narrowed to them, and how far two results lie apart."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from medllm.weights.load import TextTokens

TEXTS = (
    "問1：72歳の男性。SpO₂ 93%、CRP 12.5mg/dL。ａ〜ｅのうち２つ選べ。",
    "A 54-year-old woman has had fever and a cough for three days. Which drug is given first?",
    "Answer: a, c\nThe heart has four chambers; blood enters through the right atrium and leaves by the aorta.",
    "アスピリンは血小板の凝集を抑え、出血を延ばす。次のうち正しいのはどれか。答え: b\n",
    "Aspirin inhibits an enzyme for good, which keeps platelets from clumping together.",
)
LONGEST = 24
"""Tokens of each text at most."""
NARROW = {"sliding_window": 8, "attention_chunk_size": 8, "floor_scale": 1}
"""Values of transformers' configs and layers by which attention changes with the distance of two tokens or the length
of a text, and how small they are during a probe: at their real size, thousands of tokens, no short text shows them."""
STRONG = {"attn_scale": 4.0}
"""What a layer with a `floor_scale` multiplies by: so small a part of the result that rounding to 16 bits would hide
it, unless it is made larger during a probe."""
TOLERANCE = {torch.float32: 1e-3}
ROUNDED, ROUNDED_DEEP = 0.02, 0.1
"""How far a result may be off, as a part of what a leak would make of it; in 16 bits more than in float32, and more
where nothing else shows how much rounding does to this model."""
OF_NOISE = 3.0
"""How many times as far off as a layout that is right for any causal model; the rest is another kernel's rounding."""


def probe_texts(words: TextTokens) -> list[list[int]]:
    """The tokens of the texts, of unlike lengths."""
    tokens = [words.prompt(text)[: LONGEST - 2 * number] for number, text in enumerate(TEXTS)]
    return [token for token in tokens if len(token) > 1]


@contextmanager
def narrowed(model: Any) -> Iterator[bool]:  # noqa: ANN401  a PreTrainedModel or a PeftModel
    """Narrow all windows of attention while this holds; gives whether there are any."""
    before: list[tuple[Any, str, float]] = []
    for part in (model.config, model.config.get_text_config(), *model.modules()):
        values = NARROW | (STRONG if value_of(part, "floor_scale") else {})
        for name, probed in values.items():
            value = value_of(part, name)
            real = isinstance(value, int | float) and not isinstance(value, bool)
            if real and (value > probed or name in STRONG):
                before.append((part, name, value))
                setattr(part, name, probed)
    try:
        yield bool(before)
    finally:
        for part, name, value in reversed(before):
            setattr(part, name, value)


def value_of(part: Any, name: str) -> Any:  # noqa: ANN401  a config or a layer
    """One of its values; None where it has none, or another one in each layer, which transformers refuses to read."""
    try:
        return getattr(part, name, None)
    except RuntimeError:
        return None


@contextmanager
def without_learning(model: Any) -> Iterator[None]:  # noqa: ANN401  a PreTrainedModel or a PeftModel
    """Run the model as it answers, without dropout and without gradients, and leave it as it was."""
    learns = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(learns)


def agrees(error: torch.Tensor, leak: torch.Tensor, dtype: torch.dtype, noise: torch.Tensor | None = None) -> bool:
    """Whether what a probe finds differs by rounding alone.

    `leak` is how far off a wrong result would be, and `noise` how far off a right one of the same kind is.
    """
    if noise is None:
        return bool((error <= TOLERANCE.get(dtype, ROUNDED_DEEP) * leak).all())
    return bool((error <= torch.maximum(TOLERANCE.get(dtype, ROUNDED) * leak, OF_NOISE * noise)).all())


def apart(first: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """How far two logits (tokens x vocabulary) are apart, as a part of their size, for each token."""
    return (first - other).norm(dim=-1) / (other - other.mean(-1, keepdim=True)).norm(dim=-1)
