"""A stage made here: one process for each GPU there is, and nothing of its own among our results."""

import os
from pathlib import Path

import pytest
import yaml

from medllm.launch.here import gpus, maker_of, on_all_devices
from medllm.recipe.settings import Cpt, Merge


@pytest.mark.parametrize(("visible", "count"), [("", 0), ("-1", 0), ("3", 1), ("0,1,2,3", 4), ("GPU-a,GPU-b", 2)])
def test_only_the_gpus_that_are_made_visible_count(monkeypatch, visible, count):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus() == count


def test_the_drivers_own_list_counts_where_nothing_is_said(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho 'GPU 0: H200 (UUID: a)'\necho 'GPU 1: H200 (UUID: b)'\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert gpus() == 2


def test_a_training_gets_a_process_for_each_gpu_and_keeps_a_config_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    settings = Cpt(lora={"r": 4, "lora_alpha": 8}, max_steps=1)
    config = yaml.safe_load(Path(on_all_devices(settings, tmp_path / "making").accelerate).read_text())
    assert (config["distributed_type"], config["num_processes"]) == ("MULTI_GPU", 4)
    own = settings.model_copy(update={"accelerate": "own.yaml"})
    assert on_all_devices(own, tmp_path / "making") is own
    merge = Merge(model="rpo")
    assert on_all_devices(merge, tmp_path / "making") is merge
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert on_all_devices(settings, tmp_path / "making") is settings


def test_what_a_stage_prints_does_not_stand_among_our_results(monkeypatch, tmp_path, capsys):
    def loud(settings, sources, out):
        print("{'train_loss': 3.2}")

    monkeypatch.setattr(
        "medllm.launch.here.import_module", lambda name: type("Stage", (), {"make": staticmethod(loud)})
    )
    maker_of("merge")(Merge(model="rpo"), {}, tmp_path / "making")
    told = capsys.readouterr()
    assert told.out == ""
    assert "train_loss" in told.err
