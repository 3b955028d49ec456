"""Two and four GPUs learn what one learns: whole models and one divided, 16 and 4 bits, long rows and short ones."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from medllm.recipe.settings import Cpt, Lora, Rpo, Training
from tests import tiny
from tests.gpu.conftest import visible

PATIENCE = 600
"""Seconds; ranks that wait for each other for ever are a failure, not a stuck test."""
COMMON = {"max_steps": 4, "total_batch_size": 8, "logging_steps": 1, "report_to": (), "learning_rate": 1e-3}
TRAININGS: dict[str, Training] = {
    "cpt": Cpt(lora=Lora(r=8, lora_alpha=16), max_length=64, **COMMON),
    "cpt of short and long rows": Cpt(lora=Lora(r=8, lora_alpha=16), max_length=64, packing=False, **COMMON),
    "rpo": Rpo(model="cpt", rpo_alpha=10, max_length=256, **COMMON),
}


def sources(folder: Path, dtype: str = "bfloat16") -> dict[str, Path]:
    """A base with its data, the same for every run."""
    base = tiny.make_base(folder / "base", hidden_size=64, head_dim=16, dtype=dtype)
    found = {"base": base, "corpus": tiny.make_corpus(folder / "corpus", 60, longest=60)}
    return found | {
        "preferences": tiny.make_pairs(folder / "pairs", 32),
        "cpt": tiny.make_adapter(folder / "cpt", base),
    }


def losses(folder: Path, name: str, settings: Training, gpus: int, read: dict[str, Path]) -> list[float]:
    """Train in a process that sees so many GPUs; the losses of its log."""
    out = folder / f"{name.replace(' ', '-')}-{gpus}-{settings.accelerate}"
    given = {"stage": name.split()[0], "settings": settings.model_dump(mode="json"), "out": str(out)}
    given["sources"] = {key: str(path) for key, path in read.items()}
    (folder / f"{out.name}.json").write_text(json.dumps(given), "utf-8")
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": visible(gpus)}
    words = [sys.executable, "-m", "tests.gpu.training_run", str(folder / f"{out.name}.json")]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr[-4000:]
    lines = [json.loads(line) for line in (out / "training" / "log.jsonl").read_text("utf-8").splitlines()]
    return [value for line in lines for key, value in line.items() if key in ("loss", "loss/dpo", "loss/nll")]


@pytest.mark.gpu
@pytest.mark.parametrize("needs", [2, 4], indirect=True)
@pytest.mark.parametrize("quantization", ["none", "nf4"])
@pytest.mark.parametrize("way", ["ddp", "fsdp2"])
@pytest.mark.parametrize("name", TRAININGS)
def test_several_gpus_learn_what_one_learns(tmp_path, needs, name, way, quantization):
    settings = TRAININGS[name].model_copy(update={"quantization": quantization})
    read = sources(tmp_path)
    one = losses(tmp_path, name, settings, 1, read)
    assert len(one) >= 4
    several = losses(tmp_path, name, settings.model_copy(update={"accelerate": way}), needs, read)
    assert several == pytest.approx(one, rel=2e-2)


@pytest.mark.long
@pytest.mark.slow
def test_the_measure_itself_holds_on_a_processor(tmp_path):
    """Without a GPU: the same training twice, as these tests start it, has the same losses."""
    settings = TRAININGS["cpt"].model_copy(update={"dtype": "float32", "max_steps": 2})
    read = sources(tmp_path, "float32")
    first = losses(tmp_path, "cpt", settings, 0, read)
    again = losses(tmp_path, "cpt", settings.model_copy(update={"accelerate": "ddp"}), 0, read)
    assert len(first) == 2
    assert first == pytest.approx(again, rel=1e-6)


def test_the_first_gpus_of_those_that_were_given_are_seen():
    assert visible(2, None) == "0,1"
    assert visible(2, "4,5,6,7") == "4,5"
    assert visible(1, "GPU-a,GPU-b") == "GPU-a"
    assert visible(0, None) == ""
