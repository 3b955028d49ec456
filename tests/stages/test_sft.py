"""Supervised fine-tuning from folder to folder: what is learnt and written, on which model, and where it goes on."""

import json

import pyarrow.parquet as pq
import pytest
import torch

from medllm.recipe.settings import Lora, Merge
from medllm.stages import merge, rpo, sft
from medllm.weights.adapter import Adapter
from medllm.weights.checkpoint import Checkpoint
from medllm.weights.load import load_adapters, load_base
from tests import tiny
from tests.refusals import refused
from tests.stages.test_architectures import resumed, weights


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return tiny.make_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def trained(sources, tmp_path_factory):
    out = tmp_path_factory.mktemp("sft") / "sft"
    sft.make(tiny.SFT, sources, out)
    return out


def facts_of(out):
    return json.loads((out / "facts.json").read_text("utf-8"))


def logits(folder, base, adapter=None):
    model = load_base(folder, dtype="float32")
    model = load_adapters(model, {"default": adapter}, base) if adapter else model
    with torch.no_grad():
        return model(input_ids=torch.arange(5, 25)[None]).logits


def test_the_folder_holds_an_adapter_its_account_and_no_words_of_the_conversations(sources, trained):
    names = {path.name for path in trained.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "base.json", "audit.html", "instructions"} <= names
    assert not names & {"checkpoints", "cache", "above"}
    facts = facts_of(trained)
    assert facts["conversations_read"] == facts["conversations"] == facts["trained"] == 24
    assert facts["turns"] == 32 and facts["steps"] == 6 and facts["packed"] is True
    assert 0 < facts["tokens_learnt"] < facts["tokens"] and facts["last_loss"] < facts["first_loss"]
    assert pq.read_table(trained / "instructions" / "train-00000.parquet").num_rows == 24
    Adapter(trained).fits(Checkpoint(sources["base"]))


def test_the_logged_loss_is_the_mean_over_the_assistants_tokens_alone(sources, tmp_path):
    """Of the start, a fresh adapter: the first update's loss by the base itself, conversation by conversation."""
    from medllm.training.conversations import encode_conversations, writer_of
    from medllm.training.instructions import admit_conversations
    from medllm.weights.chat_template import ChatTemplate
    from medllm.weights.load import load_tokenizer

    settings = tiny.SFT.model_copy(update={"total_batch_size": 30, "per_device_train_batch_size": 5, "max_steps": 2})
    sft.make(settings.model_copy(update={"packing": False}), sources, tmp_path / "apart")
    sft.make(settings, sources, tmp_path / "packed")
    tokenizer = load_tokenizer(sources["base"])
    writer = writer_of(tokenizer, ChatTemplate(tokenizer, tiny.CHAT, "base"), settings)
    rows, _ = encode_conversations(admit_conversations(settings, sources, "sft").conversations, writer, 96)
    model = load_base(sources["base"], dtype="float32")
    total = count = 0.0
    for row in rows:
        with torch.no_grad():
            scores = model(torch.tensor([row["input_ids"]])).logits[0].log_softmax(-1)
        for at, learnt in enumerate(row["learnt"]):
            if learnt:
                total -= float(scores[at - 1, row["input_ids"][at]])
                count += 1
    for out in ("apart", "packed"):
        facts = facts_of(tmp_path / out)
        assert facts["tokens_learnt"] == count
        assert facts["first_loss"] == pytest.approx(total / count, rel=1e-4)


def test_a_run_that_was_killed_goes_on_to_the_same_adapter(sources, tmp_path):
    assert resumed(sft, tiny.SFT, sources, tmp_path / "sft")["steps"] == 6
    assert (tmp_path / "sft-again" / "instructions").is_dir()


def test_the_adapter_of_another_training_is_trained_further_or_a_fresh_one_above_it_is_written_as_one(
    sources, tmp_path
):
    further = tiny.SFT.model_copy(update={"model": "cpt", "lora": None, "max_steps": 2, "max_length": 96})
    sft.make(further, sources, tmp_path / "further")
    ranks = {narrow.shape[0] for narrow, _ in Adapter(tmp_path / "further").modules.values()}
    assert ranks == {4}
    seen = {}

    def look(checkpoint):
        below = load_adapters(load_base(sources["base"], dtype="float32"), {"cpt": sources["cpt"]}, sources["base"])
        above = load_adapters(below.merge_and_unload(), {"above": checkpoint}, sources["base"])
        with torch.no_grad():
            seen["logits"] = above(input_ids=torch.arange(5, 25)[None]).logits

    fresh = further.model_copy(update={"lora": Lora(r=2, lora_alpha=4, target_modules=("q_proj",))})
    with tiny.at_each_checkpoint(look):
        sft.make(fresh, sources, tmp_path / "above")
    alone = logits(sources["base"], sources["base"], tmp_path / "above")
    assert float((alone - seen["logits"]).abs().max()) < 1e-4


def test_rpo_learns_from_the_model_of_sft_and_sft_from_that_of_rpo_and_merge_takes_both(sources, trained, tmp_path):
    settings = tiny.RPO.model_copy(update={"model": "sft", "max_steps": 2})
    rpo.make(settings, {**sources, "sft": trained}, tmp_path / "rpo")
    assert facts_of(tmp_path / "rpo")["base"] == facts_of(trained)["base"]
    after = tiny.SFT.model_copy(update={"model": "rpo", "lora": None, "max_steps": 2})
    sft.make(after, {**sources, "rpo": tmp_path / "rpo"}, tmp_path / "after")
    moved = [bool((a != b).any()) for a, b in zip(weights(tmp_path / "rpo").values(),
                                                  weights(tmp_path / "after").values(), strict=True)]  # fmt: skip
    assert any(moved)
    whole = Merge(model="sft", dtype="float32", parity_questions=0)
    merge.make(whole, {"base": sources["base"], "sft": tmp_path / "after"}, tmp_path / "merged")
    with torch.no_grad():
        merged = load_base(tmp_path / "merged", dtype="float32")(input_ids=torch.arange(5, 25)[None]).logits
    apart = merged - logits(sources["base"], sources["base"], tmp_path / "after")
    assert float(apart.abs().max()) < 1e-3


def test_conversations_are_held_out_whole_for_evaluations(sources, tmp_path):
    changed = {"eval_strategy": "steps", "eval_steps": 2, "eval_size": 6, "max_steps": 4}
    sft.make(tiny.SFT.model_copy(update=changed), sources, tmp_path / "sft")
    facts = facts_of(tmp_path / "sft")
    assert facts["trained"] == 18 and facts["held_out"]["trained"] == 6
    assert set(facts["evaluations"]) == {"2", "4"} and facts["evaluations"]["4"]["eval_loss"] > 0


def test_all_weights_learn_without_an_adapter(sources, tmp_path):
    settings = tiny.SFT.model_copy(update={"lora": None, "learning_rate": 1e-4, "max_steps": 2})
    sft.make(settings, sources, tmp_path / "sft")
    assert facts_of(tmp_path / "sft")["method"] == "full fine-tuning"
    assert float((logits(tmp_path / "sft", None) - logits(sources["base"], None)).abs().max()) > 0


def test_a_base_without_a_chat_template_is_refused_where_rows_are_conversations(sources, tmp_path):
    with refused("training.no-chat-template", sources["base"]):
        sft.make(tiny.SFT.model_copy(update={"chat_template": None}), sources, tmp_path / "sft")


def test_an_update_weighs_each_learnt_token_the_same_on_any_number_of_rows_at_once(sources, trained, tmp_path):
    sft.make(tiny.SFT.model_copy(update={"per_device_train_batch_size": 1}), sources, tmp_path / "sft")
    whole, split = weights(trained), weights(tmp_path / "sft")
    assert all(torch.allclose(whole[name], split[name], atol=2e-5) for name in whole)
