"""A stage made here: one process for each GPU there is, and nothing of its own among our results."""

from pathlib import Path

import yaml

from medllm.launch.here import maker_of, on_all_devices
from medllm.recipe.settings import Cpt, Merge


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
