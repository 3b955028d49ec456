"""AutoTrain Advanced as a program: CPT and DPO by it, what it cannot do said first, and its exit code not believed."""

import json
import os
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from medllm.errors import LaunchError
from medllm.hub import connect
from medllm.launch import refuse_unfit
from medllm.launch.autotrain import train
from medllm.pipeline import make_plan
from medllm.recipe import read_recipe, with_overrides
from medllm.recipe.settings import Cpt, Rpo
from medllm.weights.adapter import Adapter
from medllm.weights.checkpoint import Checkpoint
from tests.launch.autotrain_like import program_like
from tests.pipeline import toy
from tests.refusals import refused
from tests.tiny import make_adapter, make_base, make_corpus, make_pairs

LORA = {"r": 4, "lora_alpha": 8}
SHORT = {"lora": LORA, "num_train_epochs": 1, "total_batch_size": 2, "max_length": 256, "dtype": "float32"}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, Path]:
    """A base, a CPT adapter on it, texts and pairs."""
    root = tmp_path_factory.mktemp("autotrain")
    base = make_base(root / "base")
    cpt = make_adapter(root / "cpt", base)
    return {"base": base, "cpt": cpt, "corpus": make_corpus(root / "c"), "preferences": make_pairs(root / "p")}


@pytest.fixture
def like(tmp_path, monkeypatch):
    """A program that does with its config what AutoTrain does."""
    monkeypatch.setenv("MEDLLM_AUTOTRAIN", str(program_like(tmp_path)))


def uv(tmp_path, monkeypatch, script):
    """A `uv` that does what `script` says in place of AutoTrain."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "uv").write_text(f"#!/bin/bash\nenv >&2\n{script}\n")
    (folder / "uv").chmod(0o755)
    monkeypatch.delenv("MEDLLM_AUTOTRAIN", raising=False)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("changes", "code", "place"),
    [
        ({}, "without-rpo", "rpo"),
        ({"rpo.rpo_alpha": 0}, "without-lora", "rpo"),
        ({"rpo.rpo_alpha": 0, "rpo.lora": LORA, "rpo.quantization": "nf4"}, "on-4-bit", "rpo"),
        (
            {"rpo.rpo_alpha": 0, "rpo.lora": LORA, "rpo.num_train_epochs": None, "rpo.max_steps": 5},
            "epochs",
            "rpo",
        ),
        ({"rpo.rpo_alpha": 0, "rpo.lora": {**LORA, "use_rslora": True}}, "lora", "rpo"),
        ({"rpo.rpo_alpha": 0, "rpo.lora": LORA, "rpo.loss_type": "ipo"}, "setting", "rpo"),
        ({"cpt.model": "org/adapter@v1"}, "from-adapter", "cpt"),
    ],
)
def test_what_it_cannot_do_is_refused_before_the_first_stage_is_made(tmp_path, changes, code, place):
    toy.lay_out(tmp_path)
    with connect(str(tmp_path / "hub"), "clinic") as hub:
        if "cpt.model" in changes:
            hub.api.create_repo("org/adapter")
            hub.api.create_tag("org/adapter", tag="v1")
        plan = make_plan(with_overrides(read_recipe(tmp_path / "toy.yaml"), changes), hub)
        with refused(f"launch.autotrain-{code}", f"{place}: ", kind=LaunchError):
            refuse_unfit("autotrain", plan, hub)


def test_an_exit_code_of_0_without_an_adapter_is_a_failure_reported_with_its_last_words(
    tmp_path, monkeypatch, made, like
):
    monkeypatch.setenv("AUTOTRAIN_CRASHES", "1")
    with refused("launch.autotrain-failed", "cpt", "code 0", "the training crashed"):
        train(Cpt(**SHORT), made, tmp_path / "making")
    assert not (tmp_path / "making").exists()


def test_the_program_that_uv_starts_sees_no_token_and_no_way_to_the_hub(tmp_path, monkeypatch, made):
    for name in ("HF_TOKEN", "HF_HUB_TOKEN", "HF_ENDPOINT"):
        monkeypatch.setenv(name, "hf_canary")
    uv(tmp_path, monkeypatch, 'echo "given: $@" >&2; exit 1')
    with refused("launch.autotrain-failed", "cpt", "code 1"):
        train(Cpt(**SHORT), made, tmp_path / "making")
    log = (tmp_path / "making.part" / "autotrain.log").read_text()
    assert "HF_HUB_OFFLINE=1" in log
    assert "ALLOW_REMOTE_CODE=false" in log
    assert "--from autotrain-advanced==0.8.36 autotrain --config" in log
    assert "hf_canary" not in log


def test_a_program_that_is_not_there_and_no_uv_say_what_to_install(tmp_path, monkeypatch, made):
    monkeypatch.setenv("MEDLLM_AUTOTRAIN", str(tmp_path / "none"))
    with refused("launch.no-autotrain-program", "MEDLLM_AUTOTRAIN", tmp_path / "none"):
        train(Cpt(**SHORT), made, tmp_path / "making")
    monkeypatch.delenv("MEDLLM_AUTOTRAIN")
    monkeypatch.setenv("PATH", str(tmp_path))
    with refused("launch.no-uv", "MEDLLM_AUTOTRAIN"):
        train(Cpt(**SHORT), made, tmp_path / "making")


def inspect(out: Path, sources: dict[str, Path], rank: int) -> None:
    """The adapter fits the base, changes every layer, and lies there as one of ours would."""
    adapter = Adapter(out)
    adapter.fits(Checkpoint(sources["base"]))
    assert len(adapter.modules) == 2 * 7
    assert {narrow.shape[0] for narrow, _ in adapter.modules.values()} == {rank}
    assert all(".lora_" in name for name in load_file(out / "adapter_model.safetensors"))
    assert json.loads((out / "facts.json").read_text())["trained_by"] == "autotrain-advanced==0.8.36"
    assert {"tokenizer.json", "generation_config.json", "base.json"} <= {path.name for path in out.iterdir()}
    assert not out.with_name(out.name + ".part").exists()


def test_cpt_is_trained_as_generic_and_dpo_above_it_becomes_one_adapter_with_it(tmp_path, made, like):
    train(Cpt(**SHORT), made, tmp_path / "cpt")
    inspect(tmp_path / "cpt", made, 4)
    sources = {**made, "cpt": tmp_path / "cpt"}
    train(Rpo(**SHORT, model="cpt", rpo_alpha=0), sources, tmp_path / "dpo")
    inspect(tmp_path / "dpo", sources, 8)
