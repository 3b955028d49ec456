"""Losses of preference pairs: DPO and its kin by TRL's names, and RPO's term that keeps the chosen answer likely."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.nn.functional import logsigmoid, relu

DISCOPOP_TAU = 0.05
"""Temperature of the mix in DiscoPOP (arXiv:2408.06414), as in the paper."""


class PairLogps(NamedTuple):
    """Log-probabilities of the answers of some pairs, and their lengths; one number for each pair in each of them."""

    chosen: torch.Tensor
    rejected: torch.Tensor
    chosen_tokens: torch.Tensor
    """Tokens of the chosen answer with its end mark, without the prompt."""
    rejected_tokens: torch.Tensor


class PairLoss(NamedTuple):
    """What a pair's loss is computed from, in nats: how far the policy has moved from the reference."""

    chosen: torch.Tensor
    """log p(w) - log r(w) of the chosen answer w under the policy p and the reference r."""
    rejected: torch.Tensor
    chosen_mean: torch.Tensor
    """The same, divided by the answer's tokens."""
    rejected_mean: torch.Tensor
    beta: float
    smoothing: float

    @property
    def margin(self) -> torch.Tensor:
        """Reward of the chosen answer less that of the rejected one, as DPO defines rewards."""
        return self.beta * (self.chosen - self.rejected)


def _sigmoid(pair: PairLoss) -> torch.Tensor:
    return -logsigmoid(pair.margin)


def _sigmoid_norm(pair: PairLoss) -> torch.Tensor:
    return -logsigmoid(pair.beta * (pair.chosen_mean - pair.rejected_mean))


def _robust(pair: PairLoss) -> torch.Tensor:
    flipped = pair.smoothing
    clean = (1 - flipped) * -logsigmoid(pair.margin) - flipped * -logsigmoid(-pair.margin)
    return clean / (1 - 2 * flipped)


def _hinge(pair: PairLoss) -> torch.Tensor:
    return relu(1 - pair.margin)


def _ipo(pair: PairLoss) -> torch.Tensor:
    return (pair.chosen_mean - pair.rejected_mean - 1 / (2 * pair.beta)) ** 2


def _exo_pair(pair: PairLoss) -> torch.Tensor:
    wanted = torch.tensor([1 - pair.smoothing, pair.smoothing]).log()
    right, wrong = logsigmoid(pair.margin), logsigmoid(-pair.margin)
    return right.exp() * (right - wanted[0]) + wrong.exp() * (wrong - wanted[1])


def _nca_pair(pair: PairLoss) -> torch.Tensor:
    won, lost = pair.beta * pair.chosen, pair.beta * pair.rejected
    return -logsigmoid(won) - logsigmoid(-won) / 2 - logsigmoid(-lost) / 2


def _bco_pair(pair: PairLoss) -> torch.Tensor:
    return -logsigmoid(pair.beta * pair.chosen) - logsigmoid(-pair.beta * pair.rejected)


def _sppo_hard(pair: PairLoss) -> torch.Tensor:
    goal = 1 / (2 * pair.beta)
    return (pair.chosen - goal) ** 2 + (pair.rejected + goal) ** 2


def _apo_zero(pair: PairLoss) -> torch.Tensor:
    return (-pair.beta * pair.chosen).sigmoid() + (pair.beta * pair.rejected).sigmoid()


def _apo_down(pair: PairLoss) -> torch.Tensor:
    return (pair.beta * pair.chosen).sigmoid() + (-pair.margin).sigmoid()


def _discopop(pair: PairLoss) -> torch.Tensor:
    mix = (pair.margin / DISCOPOP_TAU).sigmoid()
    return (1 - mix) * -logsigmoid(pair.margin) + mix * (-pair.margin).exp()


PREFERENCE_LOSSES: dict[str, Callable[[PairLoss], torch.Tensor]] = {
    "sigmoid": _sigmoid,
    "sigmoid_norm": _sigmoid_norm,
    "robust": _robust,
    "hinge": _hinge,
    "ipo": _ipo,
    "exo_pair": _exo_pair,
    "nca_pair": _nca_pair,
    "bco_pair": _bco_pair,
    "sppo_hard": _sppo_hard,
    "apo_zero": _apo_zero,
    "apo_down": _apo_down,
    "discopop": _discopop,
}
"""The losses of a pair by TRL's names; those that compare the pairs of a batch depend on its split and are left out."""


def rpo_loss(
    policy: PairLogps,
    reference: PairLogps,
    *,
    beta: float,
    alpha: float,
    loss_type: str = "sigmoid",
    label_smoothing: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both terms per pair: the preference loss, and alpha times the chosen answer's mean negative log-likelihood."""
    won, lost = policy.chosen - reference.chosen, policy.rejected - reference.rejected
    means = (won / policy.chosen_tokens, lost / policy.rejected_tokens)
    preference = PREFERENCE_LOSSES[loss_type](PairLoss(won, lost, *means, beta, label_smoothing))
    return preference, -policy.chosen / policy.chosen_tokens * alpha
