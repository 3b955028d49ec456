"""The watch over a run: the falling chosen answer, the full disk, the shared model."""

import errno
from types import SimpleNamespace

import pytest
import torch

from medllm.errors import TrainingError
from medllm.training.callbacks import (
    StopOnNonFinite,
    WatchChosenReward,
    keep_lines,
    refuse_shifted,
    translate_resource_errors,
)
from tests.refusals import refused


class Model:
    """Stands for the model where only the saving is looked at."""

    def save_pretrained(self, folder, **options):
        self.saved = folder


def trainer():
    """Stands for the trainer of one process."""
    model = Model()
    accelerator = SimpleNamespace(unwrap_model=lambda model: model)
    return SimpleNamespace(
        model=model, accelerator=accelerator, is_fsdp_enabled=False, is_world_process_zero=lambda: True
    )


def log_rewards(watch, *rewards):
    model = watch.trainer.model
    for step, reward in enumerate(rewards, 1):
        watch.on_log(None, SimpleNamespace(global_step=step), None, {"rewards/chosen": reward}, model=model)
    return model


def test_a_chosen_answer_that_falls_below_the_reference_is_reported_once(tmp_path):
    messages = []
    log_rewards(
        WatchChosenReward(trainer(), tmp_path, "warn", messages.append),
        0.1,
        -0.1,
        -0.2,
        0.1,
        -0.1,
        -0.2,
        -0.3,
        -0.4,
        -0.5,
    )
    assert len(messages) == 1 and messages[0].startswith("step 7: the chosen answers are less likely")
    log_rewards(WatchChosenReward(trainer(), tmp_path, "stop", messages.append), 0.2, 0.1, -0.1, 0.1)
    assert len(messages) == 1


def test_the_run_is_stopped_with_its_adapter_kept_when_the_recipe_says_so(tmp_path):
    watch = WatchChosenReward(trainer(), tmp_path / "kept", "stop", print)
    with refused("training.falling-chosen", "step 3", tmp_path / "kept", kind=TrainingError):
        log_rewards(watch, -0.1, -0.2, -0.3)


def test_full_disk_and_full_memory_say_which_knob_to_turn(tmp_path):
    with refused("stage.disk-full", "cpt", tmp_path), translate_resource_errors("cpt", tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")
    settings = ("`per_device_train_batch_size`", "`max_length`", "`gradient_checkpointing`", "`quantization: nf4`")
    with refused("training.no-memory", "cpt", tmp_path, *settings), translate_resource_errors("cpt", tmp_path):
        raise torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(RuntimeError, match="a bug"), translate_resource_errors("cpt", tmp_path):
        raise RuntimeError("a bug")


def test_lines_of_lost_steps_and_a_line_cut_by_a_kill_are_dropped(tmp_path):
    log = tmp_path / "training" / "log.jsonl"
    assert keep_lines(log, 5) == []
    log.write_text('{"step": 1}\n{"step": 2, "completion": "熱"}\n{"step": 3}\n{"step": 2, "comp', "utf-8")
    assert keep_lines(log, 2) == [1, 2]
    assert log.read_text("utf-8") == '{"step": 1}\n{"step": 2, "completion": "熱"}\n'
    assert [path.name for path in log.parent.iterdir()] == ["log.jsonl"]


def test_float16s_scaler_may_leave_updates_out_until_its_scale_is_spent(tmp_path):
    weights = torch.nn.Linear(2, 2, bias=False)
    step = torch.optim.SGD(weights.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=1000)
    learning = trainer()
    learning.accelerator.scaler = scaler
    watch = StopOnNonFinite(learning, tmp_path)
    state = SimpleNamespace(global_step=0)

    def update(gradient):
        before = scaler.get_scale()
        scaler.scale(weights(torch.ones(1, 2)).sum())  # the first call makes the scale
        for parameter in weights.parameters():
            parameter.grad = torch.full_like(parameter, gradient)
        scaler.unscale_(step)
        watch.on_pre_optimizer_step(None, state, None, model=weights)
        scaler.step(step)
        scaler.update()
        learning.accelerator.optimizer_step_was_skipped = scaler.get_scale() < before
        watch.on_optimizer_step(None, state, None)

    update(1.0)
    update(float("inf"))
    update(float("inf"))
    assert watch.skipped == 2 and scaler.get_scale() == 1.0
    with refused("training.not-finite-float16", "step 1", tmp_path):
        update(float("nan"))
    scaler_less = trainer()
    scaler_less.accelerator.scaler = None
    with refused("training.not-finite", "step 1", tmp_path):
        StopOnNonFinite(scaler_less, tmp_path).on_pre_optimizer_step(
            SimpleNamespace(device="cpu", world_size=1), state, None, model=weights
        )


def test_logits_that_only_rounding_moved_are_the_same_and_others_or_none_stop_the_run():
    torch.manual_seed(0)
    before = torch.randn(1, 16, 400)
    refuse_shifted(before, before.bfloat16().float())
    for after in (before + 0.2 * torch.randn(1, 16, 400), torch.full_like(before, torch.nan)):
        with refused("training.sharding-changes-weights", "`accelerate: ddp`"):
            refuse_shifted(before, after)
