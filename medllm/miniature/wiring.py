"""A start for the base's weights: a few heads that look back or look for a token; the rest is chance, all is trained.

Unaided, a model of this size needs about 9 M tokens before it finds how to turn a recalled name into the letter of a
choice, more than the miniature can spend. So the paths are laid, and what runs along them is learnt: which facts hold,
which note means which letter, when to look, what to say.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import Qwen2ForCausalLM
    from transformers.models.qwen2.modeling_qwen2 import Qwen2Attention

SHARPNESS = 6.0
"""Bias of a head that looks back: enough that nearly all its attention lies on one token."""
COPIED = 0.1
"""How strongly a head writes what it saw, beside embeddings of about the same size."""
SAMENESS = 2.2
"""How strongly a head that looks for a token favours equal ones."""
TO_THE_STEM = 20
"""Tokens from the colon of `Answer:` back to the end of a stem with five choices, where its answer is recalled."""


def wire(model: "Qwen2ForCausalLM") -> None:
    """Lay the paths; layer by layer, for a stem, its choices and `Answer:`.

    1. Every token notes what stood one and three tokens before: after 「dの治療薬は」 the relation and the disease.
    2. A name met again looks for where it stood before and reads the letter noted there; and what was recalled three
       tokens before is noted, as the disease that a case amounts to.
    3. The colon of `Answer:` takes over what was recalled at the end of the stem.
    4. What is about to be said is looked for among the choices, and the letter noted there is read.
    """
    import torch

    hidden, layers = model.config.hidden_size, [layer.self_attn for layer in model.model.layers]
    width = hidden // model.config.num_attention_heads
    before, own, third, spare = torch.linalg.qr(torch.randn(hidden, hidden))[0].split(width)
    turns = model.config.rope_parameters["rope_theta"] ** (-torch.arange(0, width, 2) / width)
    with torch.no_grad():
        _look_back(layers[0], 0, turns, distance=1, seen=own, noted=before)
        _look_back(layers[0], 1, turns, distance=3, seen=own, noted=third)
        _look_for(layers[1], 0, turns, wanted=before, own=own, told=before, said=own)
        _look_back(layers[1], 1, turns, distance=3, seen=own, noted=third)
        _look_back(layers[2], 0, turns, distance=TO_THE_STEM, seen=own, noted=3 * spare)
        _look_for(layers[3], 0, turns, wanted=spare / 2, own=own / 2, told=before, said=own)


def _look_back(
    attention: "Qwen2Attention",
    head: int,
    turns: "torch.Tensor",
    *,
    distance: int,
    seen: "torch.Tensor",
    noted: "torch.Tensor",
) -> None:
    """Make a head note what stood so many tokens before.

    Rotary positions turn a constant key into one that a query turned by `distance` steps meets at that distance.
    """
    import torch

    width, fast = len(seen), _fast(turns)
    begin, middle, end = head * width, head * width + width // 2, (head + 1) * width
    _clear(attention, begin, end)
    attention.q_proj.weight[begin:end] = 0
    attention.k_proj.weight[begin:end] = 0
    attention.k_proj.bias[begin:middle][fast] = SHARPNESS
    attention.q_proj.bias[begin:middle][fast] = SHARPNESS * torch.cos(distance * turns[fast])
    attention.q_proj.bias[middle:end][fast] = -SHARPNESS * torch.sin(distance * turns[fast])
    attention.v_proj.weight[begin:end] = seen
    attention.o_proj.weight[:, begin:end] = COPIED * noted.T


def _look_for(
    attention: "Qwen2Attention", head: int, turns: "torch.Tensor", *, wanted: "torch.Tensor", own: "torch.Tensor",
    told: "torch.Tensor", said: "torch.Tensor",
) -> None:  # fmt: skip
    """Make a head find the token that is the wanted one and read what is told there."""
    import torch

    # Only the slowly turning pairs compare content: sameness must not fade with distance.
    kept = torch.cat([~_fast(turns), ~_fast(turns)]).float()[:, None]
    begin, end = head * len(own), (head + 1) * len(own)
    _clear(attention, begin, end)
    attention.q_proj.weight[begin:end] = SAMENESS * wanted * kept
    attention.k_proj.weight[begin:end] = SAMENESS * own * kept
    attention.v_proj.weight[begin:end] = told
    attention.o_proj.weight[:, begin:end] = COPIED * said.T


def _clear(attention: "Qwen2Attention", begin: int, end: int) -> None:
    for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
        projection.bias[begin:end] = 0


def _fast(turns: "torch.Tensor") -> "torch.Tensor":
    """Which pairs of a head's numbers turn fast enough to tell neighbours apart."""
    return turns > 0.02
