"""The watch over a run: the falling chosen answer, the full disk, the half-written checkpoint."""

import errno
import json
from types import SimpleNamespace

import pytest
import torch

from medllm.errors import TrainingError
from medllm.training.watch import FallingChosen, keep_lines, last_checkpoint, worded


class Model:
    """Stands for the model where only the saving is looked at."""

    def save_pretrained(self, folder, **options):
        self.saved = folder


def told(watch, *rewards):
    model = Model()
    for step, reward in enumerate(rewards, 1):
        watch.on_log(None, SimpleNamespace(global_step=step), None, {"rewards/chosen": reward}, model=model)
    return model


def test_a_chosen_answer_that_falls_below_the_reference_is_told_once(tmp_path):
    said = []
    told(FallingChosen(tmp_path, "warn", said.append), 0.1, -0.1, -0.2, 0.1, -0.1, -0.2, -0.3, -0.4, -0.5)
    assert len(said) == 1 and said[0].startswith("step 7: the chosen answers are less likely")
    told(FallingChosen(tmp_path, "stop", said.append), 0.2, 0.1, -0.1, 0.1)
    assert len(said) == 1


def test_the_run_is_stopped_with_its_adapter_kept_when_the_recipe_says_so(tmp_path):
    watch = FallingChosen(tmp_path / "kept", "stop", print)
    with pytest.raises(TrainingError, match=r"step 3: the chosen answers .* stands in .*kept"):
        told(watch, -0.1, -0.2, -0.3)


def test_full_disk_and_full_memory_say_which_knob_to_turn(tmp_path):
    with pytest.raises(TrainingError, match="no space left where"), worded("cpt", tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(TrainingError, match="Lower `per_device_batch_size` or `max_length`"), worded("cpt", tmp_path):
        raise torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(RuntimeError, match="a bug"), worded("cpt", tmp_path):
        raise RuntimeError("a bug")


def test_a_half_written_checkpoint_is_passed_over(tmp_path):
    assert last_checkpoint(tmp_path) is None
    for step in (2, 10, 12):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "optimizer.pt").write_bytes(b"")
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}), "utf-8")
    (tmp_path / "checkpoint-12" / "trainer_state.json").write_text('{"global_st', "utf-8")
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-10"


def test_lines_of_lost_steps_and_a_line_cut_by_a_kill_are_dropped(tmp_path):
    log = tmp_path / "training" / "log.jsonl"
    assert keep_lines(log, 5) == []
    log.write_text('{"step": 1}\n{"step": 2, "completion": "熱"}\n{"step": 3}\n{"step": 2, "comp', "utf-8")
    assert keep_lines(log, 2) == [1, 2]
    assert log.read_text("utf-8") == '{"step": 1}\n{"step": 2, "completion": "熱"}\n'
    assert [path.name for path in log.parent.iterdir()] == ["log.jsonl"]
