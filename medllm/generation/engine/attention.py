"""Attention over a prefix that many rows share, and the stores of keys and values that it works on.

The scores over both parts are normalised together, so the result is that of ordinary attention; the shared keys and
values are read once for all rows of a model, and grouped heads are not written out. This is where few-shot evaluation
spends its time: the worked examples are four fifths of every prompt. A prompt's scores are never held as a whole, on a
CPU, where writing and reading them took five times as long as all the layers' products.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import AttentionInterface
from transformers.cache_utils import Cache, DynamicLayer
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from medllm.recipe.cost import CACHE_SHARE, SCORE, SCORES_SHARE
from medllm.weights.resources import memory_free

ROOM = 64
"""By how many tokens a row's store grows at a time."""


class RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values in a store with room to grow, where appending a token does not copy all that came before."""

    def __init__(self) -> None:
        super().__init__()
        self.length = 0

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        *args: Any,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append, and return all so far."""
        added = key_states.shape[2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = _room(key_states, added + ROOM), _room(value_states, added + ROOM)
        elif self.length + added > self.keys.shape[2]:
            room = self.length + added + ROOM
            for name in ("keys", "values"):
                grown = _room(getattr(self, name), room)
                grown[:, :, : self.length] = getattr(self, name)[:, :, : self.length]
                setattr(self, name, grown)
        self.keys[:, :, self.length : self.length + added] = key_states
        self.values[:, :, self.length : self.length + added] = value_states
        self.length += added
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]

    def get_seq_length(self) -> int:
        """Count the tokens that are stored."""
        return self.length

    @classmethod
    def of(cls, parts: Sequence["RoomyLayer"], width: int) -> "RoomyLayer":
        """The rows of several stores in one, each as far to the right as it goes; what is left free holds zeros."""
        whole, first = cls(), parts[0]
        whole.lazy_initialization(first.keys, first.values)
        whole.length = width
        for name in ("keys", "values"):
            _, heads, _, size = getattr(first, name).shape
            rows = sum(part.keys.shape[0] for part in parts)
            store = getattr(first, name).new_zeros(rows, heads, width + ROOM, size)
            at = 0
            for part in parts:
                own = getattr(part, name)[:, :, : part.length]
                store[at : at + len(own), :, width - part.length : width] = own
                at += len(own)
            setattr(whole, name, store)
        return whole


def _room(like: torch.Tensor, length: int) -> torch.Tensor:
    return like.new_empty(like.shape[0], like.shape[1], length, like.shape[3])


def roomy_cache(layers: int) -> Cache:
    """Make an empty cache for a model of so many layers."""
    return Cache(layers=[RoomyLayer() for _ in range(layers)])


def runs(models: Sequence[str]) -> list[tuple[str, slice]]:
    """Group consecutive rows of the same model.

    >>> runs(["base", "cpt", "cpt"])
    [('base', slice(0, 1, None)), ('cpt', slice(1, 3, None))]
    """
    spans, at = [], 0
    for name, group in groupby(models):
        end = at + len(list(group))
        spans.append((name, slice(at, end)))
        at = end
    return spans


@dataclass(frozen=True)
class Prefix:
    """One model's keys and values for one prefix."""

    keys: list[torch.Tensor]
    """Per layer: heads x tokens x size."""
    values: list[torch.Tensor]


@dataclass
class Shared:
    """The prefix of a batch, per model, and which rows belong to which."""

    models: list[str]
    prefixes: list[Prefix]
    rows: list[slice]
    """Per model: its rows, which are consecutive."""
    length: int

    @classmethod
    def by(cls, models: list[str], prefixes: dict[str, Prefix]) -> "Shared":
        """The prefixes that rows of these models need."""
        names, rows = zip(*runs(models), strict=True)
        return cls(list(names), [prefixes[name] for name in names], list(rows), prefixes[names[0]].keys[0].shape[1])


@dataclass
class Rows:
    """What attention must know of a batch beyond its tensors: positions, padding and the shared prefix."""

    positions: torch.Tensor
    """Rows x own tokens so far; the position of each in the text."""
    real: torch.Tensor
    """Rows x own tokens so far; False for padding."""
    shared: Shared | None = None
    _masks: dict[tuple[int, int | None], tuple[torch.Tensor, torch.Tensor | None]] = field(default_factory=dict)
    _biases: dict[tuple[int, int | None], torch.Tensor] = field(default_factory=dict)

    def masks(self, asked: int, window: int | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What the last `asked` tokens may see: of their own row, and of the prefix (None: all of it)."""
        if (asked, window) not in self._masks:
            mine = self.positions[:, -asked:]
            gap = mine[:, :, None] - self.positions[:, None, :]
            own = (gap >= 0) & self.real[:, None, :]
            if asked > 1:  # a padding token sees itself, so that no row of scores is empty
                own |= torch.eye(self.real.shape[1], dtype=torch.bool, device=own.device)[-asked:]
            prefix = None
            if window is not None:
                own &= gap < window
                if self.shared is not None:
                    before = torch.arange(self.shared.length, device=own.device)
                    prefix = mine[:, :, None] - before < window
            self._masks[(asked, window)] = (own, prefix)
        return self._masks[(asked, window)]

    def bias(self, asked: int, window: int | None, groups: int, dtype: torch.dtype) -> torch.Tensor:
        """`masks` of a row's own tokens as a number to add to the scores of heads that share a key."""
        if (asked, window) not in self._biases:
            self._biases[(asked, window)] = as_bias(self.masks(asked, window)[0].repeat(1, groups, 1), dtype)
        return self._biases[(asked, window)]

    def grow(self, positions: torch.Tensor) -> None:
        """Note one more token in each row."""
        self.positions = torch.cat([self.positions, positions], 1)
        self.real = torch.cat([self.real, torch.ones_like(positions, dtype=torch.bool)], 1)
        self._masks.clear()
        self._biases.clear()

    def keep(self, kept: torch.Tensor) -> None:
        """Go on with these rows only."""
        self.positions, self.real = self.positions[kept], self.real[kept]
        self._masks.clear()
        self._biases.clear()


def joined(read: list[tuple[Cache, Rows]], shared: Shared | None) -> tuple[Cache, Rows]:
    """One batch of several that were read one after the other; the stores of the parts are emptied on the way."""
    if len(read) == 1:
        return read[0]
    parts = [rows for _, rows in read]
    width = max(rows.real.shape[1] for rows in parts)
    positions, real = (
        torch.cat([pad(tensor, (width - tensor.shape[1], 0)) for tensor in tensors])
        for tensors in ([rows.positions for rows in parts], [rows.real for rows in parts])
    )
    caches = [cache for cache, _ in read]
    layers = [RoomyLayer.of([cache.layers.pop(0) for cache in caches], width) for _ in range(len(caches[0].layers))]
    return Cache(layers=layers), Rows(positions, real, shared)


def as_bias(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A mask as numbers to add to the scores of every head: rows x 1 x asked x keys."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, float("-inf"))[:, None]


LEAST_TOKENS, MOST_ON_CPU = 2048, 65_536
"""Tokens kept at once: fewer would be one row at a time; on a CPU more are no quicker."""


def _numbers_kept(config: Any) -> int:  # noqa: ANN401  the config of one layer
    """How many numbers the keys of one token take; its values take as many."""
    heads = int(config.num_attention_heads)
    size = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    return int(getattr(config, "num_key_value_heads", None) or heads) * size


@dataclass(frozen=True)
class CacheBudget:
    """What one model may take beside its weights."""

    tokens: int
    """Rows times their tokens and the room for answers, in one batch."""
    on_cpu: bool
    scores: float
    """Bytes for the scores of the prompts that are read at once."""
    heads: int

    @classmethod
    def of(cls, config: Any, model: Any, sharing: int) -> "CacheBudget":  # noqa: ANN401  a text config, a PreTrainedModel
        """Count what is free now, where `sharing` processes take from the same memory."""
        layers = list(config.per_layer_config)  # of some models each layer has its own number of heads, and their size
        heads = max(int(layer.num_attention_heads) for layer in layers)
        each = 2 * model.dtype.itemsize * sum(_numbers_kept(layer) for layer in layers)
        free, on_cpu = memory_free() / sharing, model.device.type == "cpu"
        tokens = max(LEAST_TOKENS, int(free * CACHE_SHARE / each))
        return cls(min(tokens, MOST_ON_CPU) if on_cpu else tokens, on_cpu, free * SCORES_SHARE, heads)

    def tokens_read(self, own: int, seen: int) -> int:
        """Tokens of prompts to read at once, when the longest has `own` tokens and each of them sees `seen`.

        On a CPU scores are never held as a whole.
        """
        if self.on_cpu:
            return 2**62
        return max(1, int(self.scores / (SCORE * self.heads * own * seen))) * own


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
    attended: tuple[torch.Tensor, torch.Tensor] = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, False, attn_mask=bias, scale=scaling
    )
    return attended


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
        attended, mass = _blocks(
            together, prefix.keys[parts.layer][None], prefix.values[parts.layer][None], bias, parts.scaling
        )
        if seen is not None:
            mass = mass.masked_fill(~seen.any(-1)[:, None], float("-inf"))
        results.append(attended.reshape(heads, count, tokens, size).transpose(0, 1))
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
