"""The proof that sharing a model out did not change it."""

import torch

from medllm.training.sharding import compare
from tests.refusals import refused


def test_logits_that_only_rounding_moved_are_the_same_and_others_or_none_stop_the_run():
    torch.manual_seed(0)
    before = torch.randn(1, 16, 400)
    compare(before, before.bfloat16().float())
    for after in (before + 0.2 * torch.randn(1, 16, 400), torch.full_like(before, torch.nan)):
        with refused("training.sharding-changes-weights", "`accelerate: ddp`"):
            compare(before, after)
