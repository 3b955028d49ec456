"""A start for the base's weights: three heads that look back or look for a token; the rest is chance, all is trained.

Unaided, a model of this size reads millions of tokens before it finds out where in a sentence to look. So the paths are
laid, and what runs along them is learnt: which facts hold, when to look, what to say.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import Qwen2ForCausalLM
    from transformers.models.qwen2.modeling_qwen2 import Qwen2Attention

SHARPNESS = 6.0
"""Bias of a head that looks back: enough that nearly all its attention lies on one token."""
SAMENESS = 2.2
"""How strongly a head that looks for a token favours equal ones."""
LAST_NORM = 0.1
"""Weight of the last norm, so that embeddings of size one give first logits of size one."""


def wire(model: "Qwen2ForCausalLM") -> None:
    """Lay the paths.

    Embeddings are of size one, so that what a token is can still be read off in the last layer. In the first layer
    every token notes what stood one and three tokens before: after 「dの治療薬は」 the relation and the disease.
    In the second a name met again looks for where it stood before and reads the letter noted there.
    """
    import torch

    hidden, layers = model.config.hidden_size, [layer.self_attn for layer in model.model.layers]
    width = hidden // model.config.num_attention_heads
    before, own, third, _ = torch.linalg.qr(torch.randn(hidden, hidden))[0].split(width)
    turns = rotary_turns(model)
    with torch.no_grad():
        model.model.embed_tokens.weight.normal_()
        model.model.norm.weight.fill_(LAST_NORM)
        _look_back(layers[0], 0, turns, distance=1, seen=own, noted=before)
        _look_back(layers[0], 1, turns, distance=3, seen=own, noted=third)
        _look_for(layers[1], 0, turns, wanted=before, own=own, read=before, written=own)


def rotary_turns(model: "Qwen2ForCausalLM") -> "torch.Tensor":
    """By how much each pair of a head's numbers turns from one token to the next, in radians; the fastest first."""
    import torch

    width = model.config.hidden_size // model.config.num_attention_heads
    return model.config.rope_parameters["rope_theta"] ** (-torch.arange(0, width, 2) / width)


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
    attention.o_proj.weight[:, begin:end] = noted.T


def _look_for(
    attention: "Qwen2Attention", head: int, turns: "torch.Tensor", *, wanted: "torch.Tensor", own: "torch.Tensor",
    read: "torch.Tensor", written: "torch.Tensor",
) -> None:  # fmt: skip
    """Make a head find the token that is the wanted one and read what is told there."""
    import torch

    # Only the slowly turning pairs compare content: sameness must not fade with distance.
    kept = torch.cat([~_fast(turns), ~_fast(turns)]).float()[:, None]
    begin, end = head * len(own), (head + 1) * len(own)
    _clear(attention, begin, end)
    attention.q_proj.weight[begin:end] = SAMENESS * wanted * kept
    attention.k_proj.weight[begin:end] = SAMENESS * own * kept
    attention.v_proj.weight[begin:end] = read
    attention.o_proj.weight[:, begin:end] = written.T


def _clear(attention: "Qwen2Attention", begin: int, end: int) -> None:
    for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
        projection.bias[begin:end] = 0


def _fast(turns: "torch.Tensor") -> "torch.Tensor":
    """Which pairs of a head's numbers turn fast enough to tell neighbours apart."""
    return turns > 0.02
