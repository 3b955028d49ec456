"""Attention over a prefix that many rows share and the rows' own tokens, without copying the prefix to each row.

The scores over both parts are normalised together, so the result is that of ordinary attention; the shared keys and
values are read once for all rows of a model, and grouped heads are not written out. This is where few-shot evaluation
spends its time: the worked examples are four fifths of every prompt. A prompt's scores are never held as a whole, on a
CPU, where writing and reading them took five times as long as all the layers' products.
"""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from medllm.generation.engine.kv_cache import Rows, Shared, as_bias

NAME = "shared_prefix"


def attend(  # noqa: PLR0913  transformers' signature for such functions
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    medllm_rows: Rows,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,  # noqa: ANN401  what other attention functions take
) -> tuple[torch.Tensor, None]:
    """Compute attention as the model defines it; `medllm_rows` replaces the mask."""
    rows, heads, asked, size = query.shape
    groups = heads // key.shape[1]
    # Heads that share a key form one matrix, so that keys are read once and never repeated.
    grouped = query.reshape(rows, key.shape[1], groups * asked, size)
    parts = Parts(grouped, key, value, medllm_rows, module.layer_idx, scaling, asked, sliding_window)
    in_blocks = asked > 1 and softcap is None and query.device.type == "cpu"
    result = _in_blocks(parts) if in_blocks else _at_once(parts, softcap)
    return result.reshape(rows, heads, asked, size).transpose(1, 2).contiguous(), None


@dataclass(frozen=True)
class Parts:
    """What is asked, and what is attended to: each row's own tokens and the prefix that it shares."""

    grouped: torch.Tensor
    """Rows x heads of keys x (heads that share a key, times asked tokens) x size."""
    key: torch.Tensor
    value: torch.Tensor
    rows: Rows
    layer: int
    scaling: float
    asked: int
    window: int | None

    @property
    def groups(self) -> int:
        """How many heads share a key."""
        return int(self.grouped.shape[2]) // self.asked


def _at_once(parts: Parts, softcap: float | None) -> torch.Tensor:
    """All scores side by side and one softmax: quickest for a single token."""
    grouped, shared, length = parts.grouped, parts.rows.shared, parts.key.shape[2]
    own, near = parts.rows.masks(parts.asked, parts.window)
    scores = [_scores(grouped, parts.key, parts.scaling, softcap, own.repeat(1, parts.groups, 1)[:, None])]
    if shared is not None:
        seen = None if near is None else near.repeat(1, parts.groups, 1)[:, None]
        scores.append(_prefix_scores(grouped, shared, parts.layer, parts.scaling, softcap, seen))
    weights = torch.cat(scores, -1).softmax(-1).to(grouped.dtype)
    result = weights[..., :length] @ parts.value
    return result if shared is None else result + _prefix_values(weights[..., length:], shared, parts.layer)


def _in_blocks(parts: Parts) -> torch.Tensor:
    """Own tokens and prefix each on their own, block by block, joined by the mass of the scores of either."""
    bias = parts.rows.bias(parts.asked, parts.window, parts.groups, parts.grouped.dtype)
    mine, mass = _blocks(parts.grouped, parts.key, parts.value, bias, parts.scaling)
    if parts.rows.shared is None:
        return mine
    theirs, their_mass = _prefix_blocks(parts, parts.rows.shared)
    share = torch.sigmoid(their_mass - mass)[..., None]
    return torch.lerp(mine.float(), theirs.float(), share.float()).to(mine.dtype)


def _blocks(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None, scaling: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention that never holds all scores, and the logarithm of each token's sum over exponentiated scores."""
    found: tuple[torch.Tensor, torch.Tensor] = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, False, attn_mask=bias, scale=scaling
    )
    return found


def _prefix_blocks(parts: Parts, shared: Shared) -> tuple[torch.Tensor, torch.Tensor]:
    """Each model's rows against its own prefix; a token whose window ends before the prefix gives it no mass."""
    near = parts.rows.masks(parts.asked, parts.window)[1]
    results, masses = [], []
    for prefix, rows in zip(shared.prefixes, shared.rows, strict=True):
        part = parts.grouped[rows]
        count, heads, tokens, size = part.shape
        together = part.transpose(0, 1).reshape(1, heads, count * tokens, size)
        seen = None if near is None else near[rows].repeat(1, parts.groups, 1).reshape(1, count * tokens, -1)
        bias = None if seen is None else as_bias(seen, part.dtype)
        found, mass = _blocks(
            together, prefix.keys[parts.layer][None], prefix.values[parts.layer][None], bias, parts.scaling
        )
        if seen is not None:
            mass = mass.masked_fill(~seen.any(-1)[:, None], float("-inf"))
        results.append(found.reshape(heads, count, tokens, size).transpose(0, 1))
        masses.append(mass.reshape(heads, count, tokens).transpose(0, 1))
    return torch.cat(results), torch.cat(masses)


def _scores(
    query: torch.Tensor, key: torch.Tensor, scaling: float, softcap: float | None, seen: torch.Tensor | None
) -> torch.Tensor:
    scores = (query @ key.transpose(-1, -2)).float() * scaling
    if softcap is not None:
        scores = (scores / softcap).tanh() * softcap
    return scores if seen is None else scores.masked_fill(~seen, float("-inf"))


def _prefix_scores(
    grouped: torch.Tensor,
    shared: Shared,
    layer: int,
    scaling: float,
    softcap: float | None,
    seen: torch.Tensor | None,
) -> torch.Tensor:
    """Each model's rows against its own prefix, all rows in one product."""
    parts = []
    for number, rows in enumerate(shared.rows):
        part = grouped[rows]
        together = part.transpose(0, 1).reshape(part.shape[1], -1, part.shape[3])
        scores = _scores(together, shared.prefixes[number].keys[layer], scaling, softcap, None)
        parts.append(scores.reshape(part.shape[1], part.shape[0], part.shape[2], -1).transpose(0, 1))
    scores = torch.cat(parts)
    return scores if seen is None else scores.masked_fill(~seen, float("-inf"))


def _prefix_values(weights: torch.Tensor, shared: Shared, layer: int) -> torch.Tensor:
    parts = []
    for number, rows in enumerate(shared.rows):
        part = weights[rows]
        together = part.transpose(0, 1).reshape(part.shape[1], -1, part.shape[3])
        values = together @ shared.prefixes[number].values[layer]
        parts.append(values.reshape(part.shape[1], part.shape[0], part.shape[2], -1).transpose(0, 1))
    return torch.cat(parts)


def register() -> None:
    """Make the function known to transformers under `NAME`."""
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
