"""The losses of preference pairs, by hand."""

import math
from typing import get_args

import pytest
import torch

from medllm.recipe.training import PreferenceLoss
from medllm.training.losses import PREFERENCE_LOSSES, PairLogps, rpo_loss


def pairs(*rows):
    """Chosen and rejected log-probability and both lengths of each pair."""
    return PairLogps(*(torch.tensor(column) for column in zip(*rows, strict=True)))


def test_the_recipe_offers_the_losses_that_exist():
    assert set(get_args(PreferenceLoss)) == set(PREFERENCE_LOSSES)


def test_the_likelihood_term_is_averaged_per_sequence_and_not_over_the_batchs_tokens():
    policy = pairs((-2.0, -5.0, 2, 4), (-30.0, -5.0, 10, 4))
    dpo, nll = rpo_loss(policy, policy, beta=0.1, alpha=10.0)
    assert dpo.tolist() == pytest.approx([math.log(2)] * 2)
    assert nll.mean().item() == pytest.approx(10 * (2 / 2 + 30 / 10) / 2)
    assert nll.mean().item() != pytest.approx(10 * 32 / 12)


def test_alpha_zero_is_plain_dpo():
    dpo, nll = rpo_loss(pairs((-2.0, -5.0, 2, 4)), pairs((-3.0, -4.0, 2, 4)), beta=0.5, alpha=0.0)
    assert nll.item() == 0
    assert dpo.item() == pytest.approx(-math.log(1 / (1 + math.exp(-0.5 * (1.0 + 1.0)))))


@pytest.mark.parametrize(
    ("name", "smoothing", "expected"),
    [
        ("sigmoid_norm", 0.0, math.log1p(math.exp(-0.5 * (1 / 2 + 1 / 4)))),
        ("robust", 0.1, (0.9 * math.log1p(math.exp(-1)) - 0.1 * math.log1p(math.exp(1))) / 0.8),
        ("hinge", 0.0, 0.0),
        ("ipo", 0.0, (1 / 2 + 1 / 4 - 1) ** 2),
        ("sppo_hard", 0.0, (1 - 1) ** 2 + (-1 + 1) ** 2),
        ("apo_zero", 0.0, 2 / (1 + math.exp(0.5))),
    ],
)
def test_a_loss_of_one_pair_is_the_one_computed_by_hand(name, smoothing, expected):
    policy, reference = pairs((-2.0, -5.0, 2, 4)), pairs((-3.0, -4.0, 2, 4))
    loss, _ = rpo_loss(policy, reference, beta=0.5, alpha=0.0, loss_type=name, label_smoothing=smoothing)
    assert loss.item() == pytest.approx(expected, abs=1e-6)
