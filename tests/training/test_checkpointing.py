"""Checkpoints by the clock: written at the end of the update in which the time is over, counted from the last one."""

from medllm.stages import cpt
from medllm.training import checkpointing
from tests import tiny


def test_a_checkpoint_comes_when_the_minutes_are_over_and_the_clock_starts_again(tmp_path, monkeypatch):
    sources = tiny.make_sources(tmp_path / "sources")
    now, saved = [0.0], []
    begin = checkpointing.Checkpoints.__init__

    def by_the_minute(self, trainer, minutes):
        begin(self, trainer, minutes, lambda: now[0])

    def later(*told, **more):
        now[0] += 60  # each update takes a minute
        return look(*told, **more)

    look = checkpointing.Checkpoints.on_step_end
    monkeypatch.setattr(checkpointing.Checkpoints, "__init__", by_the_minute)
    monkeypatch.setattr(checkpointing.Checkpoints, "on_step_end", later)
    settings = tiny.CPT.model_copy(update={"max_steps": 8, "save_steps": 4, "save_minutes": 3.0})
    cpt.make(settings, sources, tmp_path / "out", saved=lambda checkpoint: saved.append(checkpoint.name))
    assert saved == ["checkpoint-3", "checkpoint-4", "checkpoint-7", "checkpoint-8"]
