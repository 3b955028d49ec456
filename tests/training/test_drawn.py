"""The curves of a training, as TensorBoard and trackio keep them: both libraries truly write, and nothing leaves."""

import json
import os
import sqlite3
import subprocess
import sys

import pytest

from tests import tiny

SCRIPT = """
import json, sys
from pathlib import Path
from medllm.recipe.settings import Cpt
from medllm.stages import cpt
settings, base, corpus, out = json.loads(sys.argv[1])
cpt.make(Cpt.model_validate(settings), {"base": Path(base), "corpus": Path(corpus)}, Path(out))
"""
SETTINGS = {
    "lora": {"r": 4, "lora_alpha": 8},
    "max_steps": 3,
    "batch_size": 4,
    "max_length": 64,
    "dtype": "float32",
    "gradient_checkpointing": False,
    "logging_steps": 1,
    "trackers": ["tensorboard", "trackio"],
}


@pytest.mark.slow
def test_both_trackers_keep_the_losses_of_the_log(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    base, corpus, out = tiny.make_base(tmp_path / "base"), tiny.make_corpus(tmp_path / "corpus"), tmp_path / "out"
    told = json.dumps([SETTINGS, str(base), str(corpus), str(out)])
    kept = {"TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, "-c", SCRIPT, told], check=True, timeout=600, env={**os.environ, **kept})
    lines = (out / "training" / "log.jsonl").read_text("utf-8").splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    drawn = EventAccumulator(str(out / "training" / "tensorboard")).Reload()
    assert [point.value for point in drawn.Scalars("train/loss")] == pytest.approx(losses, rel=1e-5)
    with sqlite3.connect(tmp_path / "trackio" / "medllm.db") as database:
        rows = [json.loads(row) for (row,) in database.execute("SELECT metrics FROM metrics ORDER BY step")]
    assert [row["train/loss"] for row in rows if "train/loss" in row] == pytest.approx(losses, rel=1e-5)
