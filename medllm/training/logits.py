"""The one way in which a training computes its logits: all at once, or in tiles by the fused head of TRL."""

from typing import Any

from trl.trainer.utils import add_fused_lm_head

WHOLE_LOGITS = 2**27
"""Up to so many logits (0.5 GB in float32) at once, they are quicker whole than in tiles."""


def vocabulary_of(model: Any) -> int:  # noqa: ANN401  a PeftModel or a full model
    """How many logits each position has."""
    return int(model.get_output_embeddings().weight.shape[0])


def fuse_head(model: Any) -> None:  # noqa: ANN401  a PeftModel or a full model
    """Let `model(..., fused_lm_head=True)` give the log-probabilities of the labels and no more.

    TRL's trainers add a head that computes figures of its own besides, entropy for one, which we do not log.
    """
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    base.__dict__.pop("forward", None)
    add_fused_lm_head(base, outputs=("log_probs",))
