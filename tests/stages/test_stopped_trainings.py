"""Trainings that are stopped: killed, disk full, memory full, not a number. Run again, they end as if nothing was."""

import json
import resource
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from medllm.stages import cpt, rpo
from medllm.training.callbacks import Samples
from medllm.training.checkpointing import last_checkpoint
from medllm.training.cpt import RowTrainer
from medllm.training.rpo import RpoTrainer
from tests import tiny
from tests.refusals import refused

STAGES = {"cpt": (cpt, tiny.CPT), "rpo": (rpo, tiny.RPO)}
TRAINERS = {"cpt": RowTrainer, "rpo": RpoTrainer}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return tiny.make_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def whole(sources, tmp_path_factory):
    """What each stage ends with when nothing stops it."""
    made = {}
    for name, (stage, settings) in STAGES.items():
        made[name] = tmp_path_factory.mktemp("whole") / name
        stage.make(settings, sources, made[name])
    return made


def ends_as(stage, settings, sources, out, whole):
    """Run the stopped stage again, and see that its log and its weights are the uninterrupted run's, bit for bit."""
    assert not out.exists()
    assert last_checkpoint(out.with_name(out.name + ".part") / "checkpoints") is not None, "nothing to go on from"
    stage.make(settings, sources, out)
    assert [line["step"] for line in log_of(out)] == [1, 2, 3, 4, 5, 6]
    assert [line["loss"] for line in log_of(out)] == [line["loss"] for line in log_of(whole)]
    left, right = (load_file(folder / "adapter_model.safetensors") for folder in (out, whole))
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []
    names = [{path.name for path in folder.iterdir()} for folder in (out, whole)]
    assert names[0] == names[1]
    if stage is rpo:
        texts = [(folder / "training" / "samples.jsonl").read_text("utf-8") for folder in (out, whole)]
        assert texts[0] == texts[1] and texts[0].count("\n") == 3 * 2, "two prompts at each of three checkpoints"


def log_of(folder):
    return [json.loads(line) for line in (folder / "training" / "log.jsonl").read_text("utf-8").splitlines()]


def test_a_run_killed_between_a_checkpoint_and_its_samples_gives_them_when_it_goes_on(
    sources, whole, tmp_path, monkeypatch
):
    def kill(callback, args, state, control, **more):
        if state.global_step == 4:
            raise KeyboardInterrupt
        answer(callback, args, state, control, **more)

    answer = Samples.on_save
    monkeypatch.setattr(Samples, "on_save", kill)
    with pytest.raises(KeyboardInterrupt):
        rpo.make(tiny.RPO, sources, tmp_path / "rpo")
    monkeypatch.undo()
    ends_as(rpo, tiny.RPO, sources, tmp_path / "rpo", whole["rpo"])


@pytest.mark.parametrize("name", STAGES)
def test_a_killed_run_goes_on_and_ends_as_the_uninterrupted_one(sources, whole, tmp_path, name):
    class KilledError(Exception):
        pass

    def kill(checkpoint):
        if checkpoint.name == "checkpoint-4":
            (checkpoint / "trainer_state.json").write_text('{"half', "utf-8")  # cut off while being written
            raise KilledError

    stage, settings = STAGES[name]
    with tiny.at_each_checkpoint(kill), pytest.raises(KilledError):
        stage.make(settings, sources, tmp_path / "out")
    ends_as(stage, settings, sources, tmp_path / "out", whole[name])


LENGTHS = {
    "five updates": ({"max_steps": 5, "lr_scheduler_type": "constant"}, 5),
    "five updates that fall as a cosine": ({"max_steps": 5, "lr_scheduler_type": "cosine"}, 5),
    "two epochs": (
        {"max_steps": None, "num_train_epochs": 2.0, "total_batch_size": 8, "lr_scheduler_type": "constant"},
        4,
    ),
    "an epoch and a half": (
        {"max_steps": None, "num_train_epochs": 1.5, "total_batch_size": 4, "lr_scheduler_type": "constant"},
        6,
    ),
}


SHORT = (("rpo", "an epoch and a half"),)


@pytest.mark.parametrize(
    ("name", "length"),
    [
        pytest.param(name, length, marks=[] if (name, length) in SHORT else pytest.mark.long)
        for name in STAGES
        for length in LENGTHS
    ],
)
def test_a_run_killed_at_any_moment_ends_with_the_bytes_of_the_uninterrupted_one(
    sources, tmp_path, monkeypatch, name, length
):
    class KilledError(Exception):
        pass

    stage, settings = STAGES[name]
    changes, updates = LENGTHS[length]
    monkeypatch.setattr("medllm.training.callbacks.SAMPLED_TOKENS", 2)
    changed = settings.model_copy(update={"warmup_ratio": 0.0, "learning_rate": 1e-3, **changes})
    stage.make(changed, sources, tmp_path / "whole")
    facts = json.loads((tmp_path / "whole" / "facts.json").read_text("utf-8"))
    last = facts["steps"]
    assert last == updates or name == "cpt"

    def kill(*args, **options):
        raise KilledError

    def killed_after(step):
        def saved(checkpoint):
            if checkpoint.name == f"checkpoint-{step}":
                raise KilledError

        return saved

    for moment in (2, last, "write_facts", "move_into_place"):
        out = tmp_path / str(moment)
        with monkeypatch.context() as patched, pytest.raises(KilledError):
            if isinstance(moment, str):
                patched.setattr(f"medllm.stages.{name}.{moment}", kill)
            with tiny.at_each_checkpoint(killed_after(moment)):
                stage.make(changed, sources, out)
        stage.make(changed, sources, out)
        assert json.loads((out / "facts.json").read_text("utf-8"))["steps"] == last, moment
        made, whole = ((folder / "adapter_model.safetensors").read_bytes() for folder in (out, tmp_path / "whole"))
        assert made == whole, moment
        assert log_of(out) == log_of(tmp_path / "whole"), moment


@contextmanager
def lowered(kind, after="checkpoint-2"):
    """A limit of the system, lowered once a checkpoint is written and lifted at the end."""
    before = resource.getrlimit(kind)

    def lower_to(amount):
        def lower(checkpoint: Path):
            if checkpoint.name == after:
                resource.setrlimit(kind, (amount(), before[1]))

        return lower

    try:
        yield lower_to
    finally:
        resource.setrlimit(kind, before)


@pytest.mark.parametrize(("largest", "breaks"), [(12_000, "adapter_model.safetensors"), (40_000, "optimizer.pt")])
def test_a_disk_that_takes_no_more_of_a_file_is_reported_and_the_last_checkpoint_is_gone_on_with(
    sources, whole, tmp_path, largest, breaks
):
    sizes = {}

    def measured(lower):
        def saved(checkpoint):
            sizes.update({path.name: path.stat().st_size for path in checkpoint.iterdir()})
            lower(checkpoint)

        return saved

    with (
        lowered(resource.RLIMIT_FSIZE) as lower_to,
        refused("stage.disk-full", "cpt", tmp_path / "out.part") as caught,
        tiny.at_each_checkpoint(measured(lower_to(lambda: largest))),
    ):
        cpt.make(tiny.CPT, sources, tmp_path / "out")
    assert caught.value.__cause__ is not None and sizes[breaks] > largest
    smaller = {"adapter_model.safetensors"} if breaks == "optimizer.pt" else set()
    assert all(sizes[name] < largest for name in smaller), "another file would break first"
    left = tmp_path / "out.part" / "checkpoints"
    assert last_checkpoint(left) == left / "checkpoint-2"
    ends_as(cpt, tiny.CPT, sources, tmp_path / "out", whole["cpt"])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to its RLIMIT_AS")
def test_a_memory_that_is_spent_names_the_knobs_and_the_last_checkpoint_is_gone_on_with(sources, tmp_path):
    # The logits of a step (4 x 64 x 60,000 numbers, 61 MB) are by far the largest thing asked for.
    wide = {**sources, "base": tiny.make_base(tmp_path / "wide", vocab_size=60_000)}
    settings = tiny.CPT.model_copy(update={"per_device_train_batch_size": 4})
    cpt.make(settings, wide, tmp_path / "whole")

    def a_little_more():
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + 2**25

    with (
        lowered(resource.RLIMIT_AS) as lower_to,
        tiny.at_each_checkpoint(lower_to(a_little_more)),
        refused("training.no-memory", "cpt", tmp_path / "out.part"),
    ):
        cpt.make(settings, wide, tmp_path / "out")
    ends_as(cpt, settings, wide, tmp_path / "out", tmp_path / "whole")


@pytest.mark.parametrize("name", STAGES)
def test_a_loss_that_is_no_number_stops_the_run_with_the_weights_of_the_step_before(
    sources, whole, tmp_path, monkeypatch, name
):
    stage, settings = STAGES[name]
    trainer = TRAINERS[name]
    compute = trainer.compute_loss

    def spoilt(self, *args, **options):
        loss = compute(self, *args, **options)
        return loss * float("nan") if self.state.global_step == 4 else loss

    with monkeypatch.context() as patched:
        patched.setattr(trainer, "compute_loss", spoilt)
        with refused("training.not-finite", "step 5", tmp_path / "out.part" / "last_good"):
            stage.make(settings, sources, tmp_path / "out")
    part = tmp_path / "out.part"
    kept = load_file(part / "last_good" / "adapter_model.safetensors")
    fourth = load_file(part / "checkpoints" / "checkpoint-4" / "adapter_model.safetensors")
    assert kept and all(torch.equal(tensor, fourth[key]) for key, tensor in kept.items())
    ends_as(stage, settings, sources, tmp_path / "out", whole[name])


def test_a_rate_that_blows_the_weights_up_stops_the_run_too(sources, tmp_path):
    settings = tiny.CPT.model_copy(update={"learning_rate": 1e30, "max_grad_norm": 0.0, "warmup_ratio": 0.0})
    with refused("training.not-finite", tmp_path / "cpt.part" / "last_good"):
        cpt.make(settings, sources, tmp_path / "cpt")
    assert (tmp_path / "cpt.part" / "last_good" / "adapter_model.safetensors").is_file()
    assert not (tmp_path / "cpt").exists()
