"""Both trainings from folder to folder: what is written, what counts, and where they refuse."""

import json

import pyarrow.parquet as pq
import pytest
import torch

from medllm.recipe.settings import Lora
from medllm.stages import cpt, rpo
from medllm.training.load import untie_head
from medllm.weights.adapter import Adapter
from medllm.weights.checkpoint import Checkpoint
from medllm.weights.load import load_adapters, load_base, load_tokenizer
from tests import tiny
from tests.refusals import refused


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return tiny.make_sources(tmp_path_factory.mktemp("sources"))


def test_the_adapter_folder_says_what_it_is_and_holds_nothing_of_the_way(sources, tmp_path):
    rpo.make(tiny.RPO.model_copy(update={"max_steps": 2}), sources, tmp_path / "rpo")
    names = {path.name for path in (tmp_path / "rpo").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "facts.json", "base.json", "training"} <= names
    assert {"tokenizer.json", "generation_config.json", "chat_template.jinja"} <= names
    assert not names & {"ref", "checkpoints", "README.md", "cache"}
    facts = json.loads((tmp_path / "rpo" / "facts.json").read_text("utf-8"))
    assert facts["pairs"] == facts["trained"] == 16 and facts["steps"] == 2
    stops = json.loads((tmp_path / "rpo" / "generation_config.json").read_text("utf-8"))["eos_token_id"]
    vocabulary = load_tokenizer(tmp_path / "rpo").get_vocab()
    assert sorted(stops) == sorted([vocabulary["<|endoftext|>"], vocabulary["<|im_end|>"]])
    targets = json.loads((tmp_path / "rpo" / "adapter_config.json").read_text("utf-8"))["target_modules"]
    assert targets == sorted(targets) and len(targets) > 1, "the same bytes from every process"
    Adapter(tmp_path / "rpo").fits(Checkpoint(sources["base"]))


def test_the_tokens_that_came_in_are_the_tokens_trained(sources, tmp_path, capsys):
    settings = tiny.CPT.model_copy(update={"max_steps": None, "num_train_epochs": 2.0})
    cpt.make(settings, sources, tmp_path / "cpt")
    facts = json.loads((tmp_path / "cpt" / "facts.json").read_text("utf-8"))
    assert facts["tokens_trained"] == 2 * facts["tokens_in"] > 0
    assert f"{facts['tokens_in']} tokens in" in capsys.readouterr().err
    assert facts["last_loss"] < facts["first_loss"]


@pytest.mark.parametrize("tied", [False, True])
def test_a_fresh_adapter_above_cpt_is_written_as_the_one_adapter_that_is_the_final_model(sources, tmp_path, tied):
    if tied:  # and the adapter changes the embedding, but not the head that shares its weights
        base = tiny.make_base(tmp_path / "tied", tied=True)
        below = tiny.make_adapter(tmp_path / "below", base, target_modules=["embed_tokens", "q_proj"])
        sources = {**sources, "base": base, "cpt": below}
    lora = Lora(r=2, lora_alpha=6, target_modules=("q_proj", "o_proj"))
    seen = {}

    def look(checkpoint):
        base = load_base(sources["base"], dtype="float32")
        if tied:
            untie_head(base)
        below = load_adapters(base, {"cpt": sources["cpt"]}, sources["base"]).merge_and_unload()
        above = load_adapters(below, {"above": checkpoint}, sources["base"])
        with torch.no_grad():
            seen["logits"] = above(input_ids=torch.arange(5, 25)[None]).logits

    settings = tiny.RPO.model_copy(update={"lora": lora, "max_steps": 2})
    with tiny.at_each_checkpoint(look):
        rpo.make(settings, sources, tmp_path / "rpo")
    alone = load_adapters(load_base(sources["base"], dtype="float32"), {"final": tmp_path / "rpo"}, sources["base"])
    with torch.no_grad():
        logits = alone(input_ids=torch.arange(5, 25)[None]).logits
    assert float((logits - seen["logits"]).abs().max()) < 1e-4
    ranks = {module: narrow.shape[0] for module, (narrow, _) in Adapter(tmp_path / "rpo").modules.items()}
    assert {ranks["model.layers.0.self_attn.q_proj"], ranks["model.layers.0.self_attn.o_proj"]} == {6, 2}


def test_pairs_over_max_length_are_counted_and_left_out_whole(sources, tmp_path):
    rpo.make(tiny.RPO.model_copy(update={"max_length": 60, "max_steps": 1}), sources, tmp_path / "rpo")
    facts = json.loads((tmp_path / "rpo" / "facts.json").read_text("utf-8"))
    assert facts["too_long"] > 0 and facts["too_long"] + facts["trained"] == facts["pairs"] == 16
    with refused("training.pairs-too-long", "16 pairs", "`max_length` 16"):
        rpo.make(tiny.RPO.model_copy(update={"max_length": 16}), sources, tmp_path / "none")


def test_the_worked_examples_are_kept_or_dropped_as_the_recipe_says(sources, tmp_path):
    lengths = {}
    for kept in (True, False):
        out = tmp_path / str(kept)
        rpo.make(tiny.RPO.model_copy(update={"keep_exemplars": kept, "max_steps": 1}), sources, out)
        lengths[kept] = json.loads((out / "facts.json").read_text("utf-8"))["longest"]
    assert lengths[False] < lengths[True]


def test_settings_that_cannot_be_are_refused_with_their_mend(sources, tmp_path):
    with refused("recipe.batch-not-divisible", "`per_device_train_batch_size` 3"):
        cpt.make(tiny.CPT.model_copy(update={"per_device_train_batch_size": 3}), sources, tmp_path / "a")
    nf4 = tiny.RPO.model_copy(update={"quantization": "nf4", "lora": Lora(r=2, lora_alpha=2)})
    with refused("training.adapter-on-4-bit", sources["cpt"]):
        rpo.make(nf4, sources, tmp_path / "c")


def test_another_reference_is_asked_as_it_would_be_at_its_own_start(sources, tmp_path):
    other = {**sources, "first": tiny.make_adapter(tmp_path / "first", sources["base"], seed=5)}
    settings = tiny.RPO.model_copy(update={"max_steps": 2})
    rpo.make(settings.model_copy(update={"reference": "first"}), other, tmp_path / "apart")
    rpo.make(settings.model_copy(update={"model": "first"}), other, tmp_path / "own")
    rpo.make(settings, other, tmp_path / "start")
    references = {
        name: pq.read_table(tmp_path / name / "reference.parquet").to_pylist() for name in ("apart", "own", "start")
    }
    assert references["apart"] == references["own"] != references["start"]
    facts = json.loads((tmp_path / "apart" / "facts.json").read_text("utf-8"))
    assert facts["reference"] == "first"
    weights = {(tmp_path / name / "adapter_model.safetensors").read_bytes() for name in references}
    assert len(weights) == 3, "the start is `model`, whatever the reference"


def test_a_reference_that_is_lost_is_never_replaced_by_the_start(sources, tmp_path, monkeypatch):
    other = {**sources, "first": tiny.make_adapter(tmp_path / "first", sources["base"], seed=5)}
    monkeypatch.setattr(rpo, "_keep_other_reference", lambda *given: None)
    with refused("training.reference-missing", "reference.parquet"):
        rpo.make(tiny.RPO.model_copy(update={"reference": "first"}), other, tmp_path / "out")
