"""The arguments of TRL's trainers: keys of the recipe that have TRL's names reach it with the same values."""

import copy
import dataclasses

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM
from trl import SFTConfig

from medllm.recipe.settings import Cpt, Lora, Training
from medllm.training.load import SAME_NAME, MuonAndAdamW, trainer_arguments
from tests import tiny

LORA = Lora(r=4, lora_alpha=8)
FIELDS = {field.name for field in dataclasses.fields(SFTConfig)}
CONVERTED = {"max_length", "max_steps", "num_train_epochs", "optim", "per_device_train_batch_size", "report_to"}
CONVERTED |= {"eval_strategy", "eval_steps", "load_best_model_at_end"}
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
    [("none", ()), ("trackio", ("trackio",)), (["tensorboard", "wandb", "mlflow"], ("tensorboard", "wandb", "mlflow"))],
)
def test_trackers_are_written_as_in_trl(given, held):
    assert Cpt(lora=LORA, max_steps=1, report_to=given).report_to == held


def test_all_linear_is_written_as_in_peft():
    assert Lora(r=4, lora_alpha=8, target_modules="all-linear").target_modules == ("all-linear",)


def test_muon_moves_matrices_and_adamw_all_else_as_each_does_alone_after_a_restart_too():
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny.make_config(tiny.make_tokenizer(), "qwen2"), dtype=torch.float32)
    twin = copy.deepcopy(model)
    decayed = [name for name, one in model.named_parameters() if one.ndim > 1]
    ours = MuonAndAdamW(model, decayed, lr=0.01, weight_decay=0.1)
    table = {"model.embed_tokens.weight", "lm_head.weight"}
    named = dict(twin.named_parameters())
    matrices = [one for name, one in named.items() if one.ndim == 2 and name not in table]
    others = [one for name, one in named.items() if one.ndim != 2]
    muon = torch.optim.Muon(matrices, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW([{"params": [named[name] for name in sorted(table, reverse=True)]},
                               {"params": others, "weight_decay": 0.0}], lr=0.01, weight_decay=0.1)  # fmt: skip
    for step in range(4):
        if step == 2:
            kept = copy.deepcopy(ours.state_dict())
            ours = MuonAndAdamW(model, decayed, lr=0.5, weight_decay=0.3)
            ours.load_state_dict(kept)
        for group in (*ours.param_groups, *muon.param_groups, *adamw.param_groups):
            group["lr"] = 0.01 / (step + 1)  # as a schedule does
        ids = torch.randint(3, 300, (2, 8), generator=torch.Generator().manual_seed(step))
        for one, optimizers in ((model, [ours]), (twin, [muon, adamw])):
            one.zero_grad()
            one(input_ids=ids, labels=ids).loss.backward()
            for optimizer in optimizers:
                optimizer.step()
    assert matrices and all(torch.equal(one, named[name]) for name, one in model.named_parameters())
