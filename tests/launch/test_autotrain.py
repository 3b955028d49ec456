"""AutoTrain Advanced as a program: what it is told, what is refused, and that an exit code of 0 is not believed."""

import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from medllm.errors import LaunchError
from medllm.hub import connect
from medllm.launch.autotrain import config_of, launch, readable_base, train, write_rows
from medllm.pipeline import Bench, make_plan
from medllm.recipe import read_recipe, with_overrides
from medllm.recipe.settings import Cpt, Rpo
from tests.pipeline import toy

LORA = {"r": 4, "lora_alpha": 8}


@pytest.fixture
def sources(tmp_path):
    base, corpus = tmp_path / "base", tmp_path / "texts"
    base.mkdir()
    (base / "config.json").write_text('{"rope_parameters": {"rope_theta": 1000000.0}, "dtype": "bfloat16"}')
    (base / "tokenizer_config.json").write_text('{"tokenizer_class": "TokenizersBackend"}')
    (base / "chat_template.jinja").write_text("{{ messages }}")
    (corpus / "corpus").mkdir(parents=True)
    pq.write_table(
        pa.Table.from_pylist([{"id": "1", "text": "発熱"}, {"id": "2", "text": "咳"}]), corpus / "corpus" / "a.parquet"
    )
    return {"base": base, "corpus": corpus}


def program(tmp_path, monkeypatch, script):
    """A `uv` that does what `script` says in place of AutoTrain."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "uv").write_text(f"#!/bin/bash\nenv >&2\n{script}\n")
    (folder / "uv").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, r"AutoTrain cannot do Reasoning Preference Optimization.*--on here, jobs or slurm"),
        ({"rpo.rpo_alpha": 0}, r"AutoTrain starts from a full model"),
        (
            {"rpo.rpo_alpha": 0, "rpo.model": "base", "rpo.lora": LORA, "rpo.epochs": None, "rpo.max_steps": 5},
            r"counts whole epochs",
        ),
    ],
)
def test_what_it_cannot_do_is_said_before_anything_is_sent(tmp_path, changes, told):
    toy.lay_out(tmp_path)
    with connect(str(tmp_path / "hub"), "clinic") as hub:
        recipe = with_overrides(read_recipe(tmp_path / "toy.yaml"), changes)
        plan = make_plan(recipe, hub, ("rpo",))
        with pytest.raises(LaunchError, match=told):
            launch(plan, plan.item("rpo"), {}, Bench(hub, tmp_path / "runs", print))


def test_an_exit_code_of_0_without_an_adapter_is_a_failure_told_with_its_last_words(tmp_path, monkeypatch, sources):
    program(tmp_path, monkeypatch, "echo 'RuntimeError: no device' >&2; exit 0")
    with pytest.raises(LaunchError, match=r"ended with code 0 and left no adapter(.|\n)*RuntimeError: no device"):
        train(Cpt(lora=LORA, epochs=1), sources, tmp_path / "making")
    assert not (tmp_path / "making").exists()


def test_the_program_sees_no_token(tmp_path, monkeypatch, sources):
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    program(tmp_path, monkeypatch, "exit 1")
    with pytest.raises(LaunchError):
        train(Cpt(lora=LORA, epochs=1), sources, tmp_path / "making")
    log = (tmp_path / "making.part" / "autotrain.log").read_text()
    assert "HF_HUB_OFFLINE=1" in log
    assert "hf_canary" not in log


def test_todays_base_is_told_in_the_words_of_the_version_it_uses(tmp_path, sources):
    start = readable_base(sources["base"], tmp_path / "start")
    assert json.loads((start / "config.json").read_text())["rope_theta"] == 1000000.0
    tokenizer = json.loads((start / "tokenizer_config.json").read_text())
    assert tokenizer == {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": "{{ messages }}"}


def test_the_corpus_is_written_as_the_rows_it_reads(tmp_path, sources):
    assert write_rows(sources["corpus"], tmp_path / "data", ("text",)) == 2
    rows = [json.loads(line) for line in (tmp_path / "data" / "train.jsonl").read_text("utf-8").splitlines()]
    assert rows == [{"text": "発熱"}, {"text": "咳"}]
    with pytest.raises(LaunchError, match="holds no rows"):
        write_rows(sources["base"], tmp_path / "none", ("text",))


def test_our_settings_reach_it_in_its_own_words(tmp_path):
    cpt = config_of(Cpt(lora=LORA, epochs=2, batch_size=8, per_device_batch_size=2), tmp_path, tmp_path)
    assert (cpt["task"], cpt["params"]["gradient_accumulation"], cpt["params"]["lora_r"]) == ("llm-generic", 4, 4)
    dpo = config_of(Rpo(model="base", lora=LORA, rpo_alpha=0, beta=0.3, epochs=1), tmp_path, tmp_path)
    assert (dpo["task"], dpo["params"]["dpo_beta"]) == ("llm-dpo", 0.3)
    assert dpo["data"]["column_mapping"]["rejected_text_column"] == "rejected"
    assert yaml.safe_load(yaml.safe_dump(dpo)) == dpo
