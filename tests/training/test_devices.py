"""Which configurations of accelerate are refused before anything is loaded."""

import pytest

from medllm.recipe.settings import Cpt, Lora
from medllm.training.devices import FSDP2, refuse_config
from tests.refusals import refused

LORA = Lora(r=1, lora_alpha=1)


def settings(**changed):
    return Cpt(lora=LORA, **{"accelerate": "fsdp2", "max_steps": 1, **changed})


@pytest.mark.parametrize(
    ("config", "changed", "error"),
    [
        (
            {"distributed_type": "MULTI_GPU", "num_processes": 3},
            {"total_batch_size": 8},
            ("recipe.batch-not-divisible", "3 devices"),
        ),
        ({"distributed_type": "DEEPSPEED", "num_processes": 2}, {}, ("training.deepspeed", "cpt.accelerate")),
        ({"distributed_type": "FSDP", "num_processes": 2}, {}, ("training.fsdp-version", "cpt.accelerate")),
        (
            {"distributed_type": "FSDP", "fsdp_config": {"fsdp_version": 1}, "num_processes": 2},
            {},
            ("training.fsdp-version", "is 1;"),
        ),
        (FSDP2, {"optim": "paged_adamw_8bit"}, ("recipe.optimizer-not-divisible", "`paged_adamw_8bit`")),
        (FSDP2, {"optim": "adamw_8bit"}, ("recipe.optimizer-not-divisible", "`adamw_8bit`")),
        (FSDP2, {"quantization": "nf4", "dtype": "float32"}, ("recipe.nf4-not-bfloat16", "float32")),
    ],
)
def test_a_configuration_that_cannot_train_is_refused(config, changed, error):
    with refused(*error):
        refuse_config("cpt", settings(**changed), config)
