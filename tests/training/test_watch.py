"""The watch over a run: the falling chosen answer, the full disk, the half-written checkpoint, two processes."""

import errno
import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from medllm.errors import TrainingError
from medllm.recipe.settings import Cpt, Lora, Rpo
from medllm.stages import cpt, rpo
from medllm.training.arguments import split_batch
from medllm.training.watch import FallingChosen, last_checkpoint, worded
from tests import tiny
from tests.test_house import ROOT


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
    with pytest.raises(TrainingError, match="no space left"), worded("cpt", tmp_path):
        raise RuntimeError("[enforce fail] write failed: No space left on device")
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


def test_a_batch_is_split_over_devices_without_changing_its_size():
    assert split_batch(16, 4, 2) == (4, 2)
    assert split_batch(4, 8, 1) == (4, 1)
    with pytest.raises(TrainingError, match="cannot be shared by 3 devices"):
        split_batch(16, 1, 3)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["cpt", "rpo"])
def test_two_processes_over_gloo_learn_what_one_learns(tmp_path, stage):
    base = tiny.make_base(tmp_path / "base")
    sources = {"base": base, "cpt": tiny.make_adapter(tmp_path / "cpt", base)}
    sources |= {"corpus": tiny.make_corpus(tmp_path / "corpus", 80), "preferences": tiny.make_pairs(tmp_path / "pairs")}
    common = {"max_steps": 4, "batch_size": 4, "dtype": "float32", "learning_rate": 1e-3}
    common |= {"gradient_checkpointing": False, "logging_steps": 1, "trackers": ()}
    settings = Cpt(lora=Lora(r=4, lora_alpha=8), max_length=64, **common)
    if stage == "rpo":
        settings = Rpo(model="cpt", rpo_alpha=10, max_length=256, **common)
    make = {"cpt": cpt.make, "rpo": rpo.make}[stage]
    make(settings, sources, tmp_path / "one")
    config = str(ROOT / "recipes" / "accelerate" / "cpu-2.yaml")
    make(settings.model_copy(update={"accelerate": config}), sources, tmp_path / "two")
    assert not (tmp_path / "two.given.json").exists()
    one, two = (lines_of(tmp_path / name) for name in ("one", "two"))
    # The same rows to an update, and each token (or pair) with the same weight.
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], rel=1e-4)
    left, right = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("one", "two"))
    assert left.keys() == right.keys()


def lines_of(folder):
    return [json.loads(line) for line in (folder / "training" / "log.jsonl").read_text("utf-8").splitlines()]
