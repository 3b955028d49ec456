"""The proof that sharing a model out did not change it."""

import pytest
import torch

from medllm.errors import TrainingError
from medllm.training.sharding import compare


def test_logits_that_only_rounding_moved_are_the_same_and_others_or_none_stop_the_run():
    torch.manual_seed(0)
    before = torch.randn(1, 16, 400)
    compare(before, before.bfloat16().float())
    for after in (before + 0.2 * torch.randn(1, 16, 400), torch.full_like(before, torch.nan)):
        with pytest.raises(TrainingError, match=r"moved its logits by .*issue 1945.*`accelerate: ddp`"):
            compare(before, after)
