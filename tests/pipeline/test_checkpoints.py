"""Checkpoints of a real training: on the Hub while the model still learns, and gone on with by another machine."""

import json
import threading
import time

import pytest

from medllm.hub import connect
from medllm.hub.push import branch_of
from medllm.pipeline import BuildContext, lineage, make, make_plan, run
from medllm.recipe import read_recipe
from medllm.stages import cpt
from tests import tiny

RECIPE = """
name: tiny
base: ./base
namespace: clinic
cutoff: 2017-12-31
cpt:
  data: ./texts
  lora: {r: 4, lora_alpha: 8}
  dtype: float32
  max_steps: 6
  total_batch_size: 4
  max_length: 64
  learning_rate: 0.01
  gradient_checkpointing: false
  logging_steps: 1
  save_steps: 2
  report_to: []
"""
PATIENCE = 900


class MachineGoneError(Exception):
    """Stands for a machine that is taken away, with its disk, in the middle of a training."""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.setattr(lineage, "TEMPLATES", {})  # a folder of texts has none of the facts that a card tells
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    tiny.make_base(tmp_path / "base")
    tiny.make_corpus(tmp_path / "texts")
    (tmp_path / "tiny.yaml").write_text(RECIPE, "utf-8")
    return read_recipe(tmp_path / "tiny.yaml")


def trained(recipe, hub, bench, maker):
    """Run the one stage of the recipe; the folder as it stands on the Hub."""
    plan = make_plan(recipe, hub)
    made = run(plan, bench, lambda plan, item, so_far, bench: make(plan, item, so_far, maker, bench), lambda plan: None)
    return hub.pull(made["cpt"])


def until_on_the_hub(hub, item, name):
    """Wait until a file is on the branch of the half-made work: the training stands still meanwhile."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        there = hub.state_at(item.repo_id, item.kind, branch_of(item.digest))
        if there and name in there.files:
            return
        threading.Event().wait(0.2)
    pytest.fail(f"{name} did not reach the Hub in {PATIENCE} s")


@pytest.mark.slow
def test_checkpoints_are_pushed_while_training_and_another_machine_ends_with_the_same_losses(recipe, tmp_path):
    messages = []
    with connect(str(tmp_path / "hub"), "clinic") as hub:
        item = next(one for one in make_plan(recipe, hub).items if one.stage == "cpt")

        def dies_after_the_second_checkpoint(settings, sources, out):
            def saved(checkpoint):
                if checkpoint.name == "checkpoint-4":
                    until_on_the_hub(hub, item, "checkpoints/checkpoint-4/trainer_state.json")
                    raise MachineGoneError

            with tiny.at_each_checkpoint(saved):
                cpt.make(settings, sources, out)

        with pytest.raises(MachineGoneError):
            trained(
                recipe,
                hub,
                BuildContext(hub, tmp_path / "one", messages.append, keep_every=0.2),
                dies_after_the_second_checkpoint,
            )
        folder = trained(recipe, hub, BuildContext(hub, tmp_path / "another", messages.append), cpt.make)
        resumed = losses_of(folder)
        assert any("going on where it was stopped" in line for line in messages)
        assert [branch.name for branch in hub.refs(item.repo_id, item.kind).branches] == ["main"]
    cpt.make(item.settings, {"base": tmp_path / "base", "./texts": tmp_path / "texts"}, tmp_path / "whole")
    assert resumed == losses_of(tmp_path / "whole") and len(resumed) == 6


def losses_of(folder):
    return [json.loads(line)["loss"] for line in (folder / "training" / "log.jsonl").read_text("utf-8").splitlines()]
