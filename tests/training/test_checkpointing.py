"""Checkpoints come at the end of the update in which their time is over; a half-written one is passed over."""

import json

import torch

from medllm.stages import cpt
from medllm.training import checkpointing
from medllm.training.checkpointing import last_checkpoint
from tests import tiny


def test_a_checkpoint_comes_when_the_minutes_are_over_and_the_clock_starts_again(tmp_path, monkeypatch):
    sources = tiny.make_sources(tmp_path / "sources")
    now, saved = [0.0], []
    begin = checkpointing.Checkpoints.__init__

    def by_the_minute(self, trainer, minutes):
        begin(self, trainer, minutes, lambda: now[0])

    def later(*given, **more):
        now[0] += 60  # each update takes a minute
        return look(*given, **more)

    look = checkpointing.Checkpoints.on_step_end
    monkeypatch.setattr(checkpointing.Checkpoints, "__init__", by_the_minute)
    monkeypatch.setattr(checkpointing.Checkpoints, "on_step_end", later)
    settings = tiny.CPT.model_copy(update={"max_steps": 8, "save_steps": 4, "save_minutes": 3.0})
    with tiny.at_each_checkpoint(lambda checkpoint: saved.append(checkpoint.name)):
        cpt.make(settings, sources, tmp_path / "out")
    assert saved == ["checkpoint-3", "checkpoint-4", "checkpoint-7", "checkpoint-8"]


def test_a_half_written_checkpoint_is_passed_over(tmp_path):
    assert last_checkpoint(tmp_path) is None
    for step in (2, 10, 12):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "optimizer.pt").write_bytes(b"")
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}), "utf-8")
    (tmp_path / "checkpoint-12" / "trainer_state.json").write_text('{"global_st', "utf-8")
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    torch.save({}, tmp_path / "checkpoint-10" / "rng_state_0.pth")
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    (tmp_path / "checkpoint-10" / "rng_state_1.pth").write_bytes(b"PK\x03\x04 and then the disk was full")
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-2", "another process wrote its part by half"
    (tmp_path / "checkpoint-2" / "optimizer_0").mkdir()
    assert last_checkpoint(tmp_path) is None, "shares of the optimizer without their table of contents"
    (tmp_path / "checkpoint-2" / "optimizer_0" / ".metadata").write_bytes(b"")
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
