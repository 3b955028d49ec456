"""The arguments of TRL's trainers: keys of the recipe that have TRL's names reach it with the same values."""

import dataclasses

import pytest
from pydantic import ValidationError
from trl import SFTConfig

from medllm.recipe.settings import Cpt, Lora, Training
from medllm.training.load import SAME_NAME, trainer_arguments

LORA = Lora(r=4, lora_alpha=8)
FIELDS = {field.name for field in dataclasses.fields(SFTConfig)}
CONVERTED = {"max_length", "max_steps", "num_train_epochs", "optim", "per_device_train_batch_size", "report_to"}
"""Keys with TRL's names whose values depend on the devices, or that exclude each other."""


def test_every_key_with_a_name_of_trl_is_handed_over(tmp_path):
    assert set(Training.model_fields) & FIELDS == SAME_NAME | CONVERTED
    settings = Cpt(lora=LORA, num_train_epochs=2, learning_rate=3e-4, lr_scheduler_type="linear", save_steps=7, seed=5)
    arguments = trainer_arguments(settings, tmp_path)
    assert {key: arguments[key] for key in SAME_NAME} == {key: getattr(settings, key) for key in SAME_NAME}
    assert arguments["num_train_epochs"] == 2
    assert set(arguments) <= FIELDS


@pytest.mark.parametrize(("ratio", "steps"), [(0.0, 0), (0.03, 6), (0.25, 50)])
def test_the_warm_up_is_a_share_of_the_updates(tmp_path, ratio, steps):
    arguments = trainer_arguments(Cpt(lora=LORA, max_steps=200, warmup_ratio=ratio), tmp_path)
    assert SFTConfig(**arguments).get_warmup_steps(200) == steps


def test_a_warm_up_of_all_updates_is_refused_because_trl_reads_1_as_one_step():
    with pytest.raises(ValidationError, match="less than 1"):
        Cpt(lora=LORA, max_steps=200, warmup_ratio=1.0)


@pytest.mark.parametrize(
    ("given", "held"),
    [("none", ()), ("trackio", ("trackio",)), (["tensorboard", "trackio"], ("tensorboard", "trackio"))],
)
def test_trackers_are_written_as_in_trl(given, held):
    assert Cpt(lora=LORA, max_steps=1, report_to=given).report_to == held


def test_all_linear_is_written_as_in_peft():
    assert Lora(r=4, lora_alpha=8, target_modules="all-linear").target_modules == ("all-linear",)
