"""Attention over a prefix that many rows share and the rows' own tokens, without copying the prefix to each row.

The scores over both parts are normalised together, so the result is that of ordinary attention; the shared keys and
values are read once for all rows of a model, and grouped heads are not written out. This is where the time of few-shot
evaluation lies: the worked examples are four fifths of every prompt.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.cache_utils import Cache, DynamicLayer
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "shared_prefix"
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
        """Tokens stored."""
        return self.length


def _room(like: torch.Tensor, length: int) -> torch.Tensor:
    return like.new_empty(like.shape[0], like.shape[1], length, like.shape[3])


def roomy_cache(layers: int) -> Cache:
    """Make an empty cache for a model of so many layers."""
    return Cache(layers=[RoomyLayer() for _ in range(layers)])


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
    """Per model: its rows, which stand together."""
    length: int


@dataclass
class Rows:
    """What attention must know of a batch beyond its tensors: positions, padding and the shared prefix."""

    positions: torch.Tensor
    """Rows x own tokens so far; where in the text each stands."""
    real: torch.Tensor
    """Rows x own tokens so far; False for padding."""
    shared: Shared | None = None
    _masks: dict[tuple[int, int | None], tuple[torch.Tensor, torch.Tensor | None]] = field(default_factory=dict)

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

    def grow(self, positions: torch.Tensor) -> None:
        """Note one more token in each row."""
        self.positions = torch.cat([self.positions, positions], 1)
        self.real = torch.cat([self.real, torch.ones_like(positions, dtype=torch.bool)], 1)
        self._masks.clear()

    def keep(self, kept: torch.Tensor) -> None:
        """Go on with these rows only."""
        self.positions, self.real = self.positions[kept], self.real[kept]
        self._masks.clear()


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
    """Attention as the model defines it; `medllm_rows` tells what the mask would."""
    rows, heads, asked, size = query.shape
    groups = heads // key.shape[1]
    # Heads that share a key stand in one matrix, so that keys are read once and never repeated.
    grouped = query.reshape(rows, key.shape[1], groups * asked, size)
    own, near = medllm_rows.masks(asked, sliding_window)
    scores = [_scores(grouped, key, scaling, softcap, own.repeat(1, groups, 1)[:, None])]
    shared = medllm_rows.shared
    if shared is not None:
        seen = None if near is None else near.repeat(1, groups, 1)[:, None]
        scores.append(_prefix_scores(grouped, shared, module.layer_idx, scaling, softcap, seen))
    weights = torch.cat(scores, -1).softmax(-1).to(query.dtype)
    length = key.shape[2]
    result = weights[..., :length] @ value
    if shared is not None:
        result += _prefix_values(weights[..., length:], shared, module.layer_idx)
    return result.reshape(rows, heads, asked, size).transpose(1, 2).contiguous(), None


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
