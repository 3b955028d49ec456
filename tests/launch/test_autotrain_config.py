"""What AutoTrain Advanced is given: a base it can read, rows in its columns, our settings in its words."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from medllm.launch.autotrain import config_of, readable_base, refuse, write_rows
from medllm.pipeline import StagePlan
from medllm.recipe.settings import Cpt, Rpo
from tests.refusals import refused

LORA = {"r": 4, "lora_alpha": 8}


@pytest.fixture
def base(tmp_path):
    folder = tmp_path / "base"
    folder.mkdir()
    values = {"rope_parameters": {"rope_theta": 1000000.0}, "dtype": "bfloat16", "auto_map": {"AutoModel": "x.X"}}
    (folder / "config.json").write_text(json.dumps(values))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "TokenizersBackend"}')
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "modeling.py").write_text("raise SystemExit")
    (folder / "pytorch_model.bin").write_text("a pickle")
    return folder


def table(folder, *rows):
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), folder / "a.parquet")


def rows_of(data):
    return [json.loads(line) for line in (data / "train.jsonl").read_text("utf-8").splitlines()]


def test_todays_base_is_named_in_the_words_of_the_version_it_uses(tmp_path, base):
    start = readable_base(base, tmp_path / "start")
    assert json.loads((start / "config.json").read_text())["rope_theta"] == 1000000.0
    tokenizer = json.loads((start / "tokenizer_config.json").read_text())
    assert tokenizer == {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": "{{ messages }}"}


def test_a_bases_own_code_and_pickles_are_left_behind(tmp_path, base):
    start = readable_base(base, tmp_path / "start")
    assert "auto_map" not in json.loads((start / "config.json").read_text())
    assert not {"modeling.py", "pytorch_model.bin"} & {path.name for path in start.iterdir()}


def test_the_corpus_is_written_as_the_rows_it_reads(tmp_path, base):
    table(tmp_path / "texts" / "corpus", {"id": "1", "text": "発熱"}, {"id": "2", "text": "咳"})
    values = write_rows(Cpt(lora=LORA, num_train_epochs=1), tmp_path / "texts", base, tmp_path / "data")
    assert values == {"rows": 2, "too_long": 0}
    assert rows_of(tmp_path / "data") == [{"text": "発熱"}, {"text": "咳"}]


def test_a_source_without_its_columns_is_refused_by_name(tmp_path, base):
    table(tmp_path / "texts", {"id": "1", "texts": "発熱"})
    with refused("training.missing-column", "a.parquet", "no column text"):
        write_rows(Cpt(lora=LORA, num_train_epochs=1), tmp_path / "texts", base, tmp_path / "data")
    (tmp_path / "none").mkdir()
    with refused("launch.autotrain-without-rows", tmp_path / "none"):
        write_rows(Cpt(lora=LORA, num_train_epochs=1), tmp_path / "none", base, tmp_path / "data")


def test_pairs_that_do_not_fit_are_left_out_whole_and_counted(tmp_path, base):
    from tests.tiny import make_tokenizer

    make_tokenizer().save_pretrained(str(base))
    pair = {"chosen": "a", "rejected": "b", "prompt_without_shots": "short", "prompt": "short"}
    table(tmp_path / "pairs" / "data", pair, {**pair, "prompt": "患者の発熱" * 40})
    settings = {"model": "base", "lora": LORA, "rpo_alpha": 0, "num_train_epochs": 1, "max_length": 64}
    values = write_rows(Rpo(**settings), tmp_path / "pairs", base, tmp_path / "kept")
    assert values == {"rows": 1, "too_long": 1}
    values = write_rows(Rpo(**settings, keep_exemplars=False), tmp_path / "pairs", base, tmp_path / "dropped")
    assert values == {"rows": 2, "too_long": 0}
    assert rows_of(tmp_path / "dropped")[1] == {"prompt": "short", "chosen": "a", "rejected": "b"}


def test_our_settings_reach_it_in_its_own_words(tmp_path):
    cpt = config_of(
        Cpt(lora=LORA, num_train_epochs=2, total_batch_size=8, per_device_train_batch_size=2), tmp_path, tmp_path
    )
    assert (cpt["task"], cpt["params"]["gradient_accumulation"], cpt["params"]["lora_r"]) == ("llm-generic", 4, 4)
    dpo = config_of(Rpo(model="base", lora=LORA, rpo_alpha=0, beta=0.3, num_train_epochs=1), tmp_path, tmp_path)
    assert (dpo["task"], dpo["params"]["dpo_beta"]) == ("llm-dpo", 0.3)
    assert dpo["data"]["column_mapping"]["rejected_text_column"] == "rejected"
    assert yaml.safe_load(yaml.safe_dump(dpo)) == dpo


@pytest.mark.parametrize(
    ("key", "changed"),
    [
        ("eval_strategy", {"eval_strategy": "epoch"}),
        ("chat_template", {"chat_template": "{{ messages }}"}),
        ("optim", {"optim": "muon"}),
    ],
)
def test_what_autotrain_has_no_setting_for_is_refused_before_the_first_stage(key, changed):
    settings = Cpt(lora=LORA, num_train_epochs=1, **changed)
    item = StagePlan("cpt", settings, "me/x-cpt", "model", (), "0" * 64, None, None, "")
    with refused("launch.autotrain-setting", "cpt", f"`{key}: "):
        refuse(item)
