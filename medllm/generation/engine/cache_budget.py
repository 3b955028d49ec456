"""How many tokens are read and kept at once: by the memory that is free once the weights are loaded."""

from dataclasses import dataclass
from typing import Any

from medllm.recipe.cost import CACHE_SHARE, SCORE, SCORES_SHARE
from medllm.weights.resources import memory_free

LEAST_TOKENS, MOST_ON_CPU = 2048, 65_536
"""Tokens kept at once: fewer would be one row at a time; on a CPU more are no quicker."""


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
        heads = int(config.num_attention_heads)
        size = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
        of_keys = int(getattr(config, "num_key_value_heads", None) or heads)
        each = 2 * int(config.num_hidden_layers) * of_keys * size * model.dtype.itemsize
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
