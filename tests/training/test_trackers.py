"""The curves of a training, as TensorBoard and trackio keep them: both libraries truly write, and nothing leaves."""

import json
import os
import sqlite3
import subprocess
import sys

import pytest
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from medllm.recipe.settings import Cpt, Lora
from medllm.stages import cpt, rpo
from medllm.training.devices import set_up_trackers
from medllm.training.load import trainer_arguments
from tests import tiny
from tests.refusals import refused

SCRIPT = """
import json, sys
from pathlib import Path
from medllm.recipe.settings import Cpt
from medllm.stages import cpt
from tests.tiny import at_each_checkpoint
settings, base, corpus, out = json.loads(sys.argv[1])
given = Cpt.model_validate(settings), {"base": Path(base), "corpus": Path(corpus)}, Path(out)
def killed(checkpoint):
    if checkpoint.name == "checkpoint-4":
        (checkpoint / "trainer_state.json").unlink()
        raise KeyboardInterrupt
try:
    with at_each_checkpoint(killed):
        cpt.make(*given)
except KeyboardInterrupt:
    cpt.make(*given)
"""
SETTINGS = {
    "lora": {"r": 4, "lora_alpha": 8},
    "max_steps": 5,
    "save_steps": 2,
    "total_batch_size": 4,
    "max_length": 64,
    "dtype": "float32",
    "gradient_checkpointing": False,
    "logging_steps": 1,
    "report_to": ["tensorboard", "trackio"],
}


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.usefixtures("watchdog")
def test_both_trackers_keep_the_losses_of_the_log_of_a_run_that_was_killed_and_gone_on_with(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    base, corpus, out = tiny.make_base(tmp_path / "base"), tiny.make_corpus(tmp_path / "corpus"), tmp_path / "out"
    text = json.dumps([SETTINGS, str(base), str(corpus), str(out)])
    kept = {"TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, "-c", SCRIPT, text], check=True, env={**os.environ, **kept})
    lines = (out / "training" / "log.jsonl").read_text("utf-8").splitlines()
    losses = {line["step"]: line["loss"] for line in map(json.loads, lines)}
    assert list(losses) == [1, 2, 3, 4, 5]
    drawn = EventAccumulator(str(out / "training" / "tensorboard")).Reload().Scalars("train/loss")
    assert [point.step for point in drawn] == list(losses), "no step twice"
    assert [point.value for point in drawn] == pytest.approx(list(losses.values()), rel=1e-5)
    with sqlite3.connect(tmp_path / "trackio" / "medllm.db") as database:
        rows = [json.loads(row) for (row,) in database.execute("SELECT metrics FROM metrics ORDER BY rowid")]
    # trackio counts its own steps, anew in each run: the training's step stands among the figures.
    tracked = {row["train/global_step"]: row["train/loss"] for row in rows if "train/loss" in row}
    assert tracked == {step: pytest.approx(loss, rel=1e-5) for step, loss in losses.items()}


def test_each_tracker_reaches_transformers_and_tensorboard_is_drawn_into_the_folder_that_is_kept(tmp_path):
    settings = Cpt(lora=Lora(r=4, lora_alpha=8), max_steps=1, report_to=["tensorboard", "wandb", "mlflow", "trackio"])
    assert trainer_arguments(settings, tmp_path)["report_to"] == ["wandb", "mlflow", "trackio"]
    assert set(settings.report_to) <= set(INTEGRATION_TO_CALLBACK)


def test_a_tracker_that_is_not_installed_is_refused_before_anything_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr("medllm.training.devices.find_spec", lambda name: None)
    for stage, settings in ((cpt, tiny.CPT), (rpo, tiny.RPO)):
        with refused("training.no-tracker", "`mlflow`", "pip install mlflow"):
            stage.make(settings.model_copy(update={"report_to": ("mlflow",)}), {}, tmp_path / "out")


@pytest.mark.parametrize(("hub", "mode"), [("1", "offline"), ("0", None)])
def test_wandb_gets_figures_alone_and_sends_nothing_where_the_hub_is_offline(monkeypatch, hub, mode):
    monkeypatch.setattr("medllm.training.devices.find_spec", lambda name: name)
    monkeypatch.setattr(os, "environ", {"HF_HUB_OFFLINE": hub, "WANDB_PROJECT": "mine"})
    set_up_trackers("cpt", tiny.CPT.model_copy(update={"report_to": ("wandb",)}))
    assert os.environ.get("WANDB_MODE") == mode and os.environ["WANDB_CONSOLE"] == "off"
    assert os.environ["WANDB_PROJECT"] == "mine", "what the environment states stays"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what mlflow and sqlalchemy have to say to each other
def test_mlflow_keeps_the_losses_of_the_log_in_the_store_that_its_variable_names(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed; `pip install mlflow` runs this test")
    monkeypatch.setattr(os, "environ", {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"})
    sources = {"base": tiny.make_base(tmp_path / "base"), "corpus": tiny.make_corpus(tmp_path / "corpus")}
    cpt.make(Cpt.model_validate({**SETTINGS, "report_to": ["mlflow"]}), sources, tmp_path / "out")
    client = mlflow.MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name("medllm")
    (kept,) = client.search_runs([experiment.experiment_id])
    assert kept.info.status == "FINISHED"
    drawn = {point.step: point.value for point in client.get_metric_history(kept.info.run_id, "loss")}
    lines = (tmp_path / "out" / "training" / "log.jsonl").read_text("utf-8").splitlines()
    assert drawn == {line["step"]: pytest.approx(line["loss"]) for line in map(json.loads, lines)}
    assert list(drawn) == [1, 2, 3, 4, 5]
