"""Which configurations of accelerate are refused before anything is loaded."""

import pytest

from medllm.errors import TrainingError
from medllm.recipe.settings import Cpt, Lora
from medllm.training.devices import FSDP2, refuse_config

LORA = Lora(r=1, lora_alpha=1)


def settings(**changed):
    return Cpt(lora=LORA, **{"accelerate": "fsdp2", "max_steps": 1, **changed})


@pytest.mark.parametrize(
    ("told", "changed", "reason"),
    [
        (
            {"distributed_type": "MULTI_GPU", "num_processes": 3},
            {"total_batch_size": 8},
            "cannot be shared by 3 devices",
        ),
        ({"distributed_type": "DEEPSPEED", "num_processes": 2}, {}, "DeepSpeed is not supported"),
        ({"distributed_type": "FSDP", "num_processes": 2}, {}, "only version 2 of FSDP"),
        ({"distributed_type": "FSDP", "fsdp_config": {"fsdp_version": 1}, "num_processes": 2}, {}, "only version 2"),
        (FSDP2, {"optim": "paged_adamw_8bit"}, "cannot be divided by FSDP2"),
        (FSDP2, {"optim": "adamw_8bit"}, "cannot be divided by FSDP2"),
        (FSDP2, {"quantization": "nf4", "dtype": "float32"}, "would cast the 4-bit base"),
    ],
)
def test_what_cannot_train_is_refused_with_its_mend(told, changed, reason):
    with pytest.raises(TrainingError, match=reason):
        refuse_config("cpt", settings(**changed), told)
