"""Continued pretraining as it is wired: whose loss, which tokens, what rate; the settings do what they say."""

import json
import math

import pytest
import torch

from medllm.stages import cpt as stage
from medllm.training import cpt
from medllm.training.cpt import IGNORED, RowCollator, make_rows, read_texts
from medllm.training.updates import SHARE
from medllm.weights.load import load_base, load_tokenizer
from tests import tiny


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return tiny.make_sources(tmp_path_factory.mktemp("sources"))


def trained(sources, out, **changed):
    """What the log says of each step of a training with these settings."""
    stage.make(tiny.CPT.model_copy(update=changed), sources, out)
    return [json.loads(line) for line in (out / "training" / "log.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("limit", [cpt.WHOLE_LOGITS, 0], ids=["whole logits", "TRL's tiles"])
def test_the_loss_is_the_mean_over_the_tokens_that_a_document_predicts(sources, tmp_path, monkeypatch, limit):
    monkeypatch.setattr(cpt, "WHOLE_LOGITS", limit)
    tokenizer = load_tokenizer(sources["base"])
    rows, _ = make_rows(read_texts(sources["corpus"], tmp_path / "cache"), tokenizer, 64, packing=True)
    trainer = cpt.make_trainer(
        load_base(sources["base"], dtype="float32"), tokenizer, rows, tiny.CPT, tmp_path / "work"
    )
    batch = RowCollator(tokenizer.pad_token_id)([rows[number] for number in range(3)])
    counted = (batch["labels"] != IGNORED).sum()
    with torch.no_grad():
        loss = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=counted)
    plain, expected = load_base(sources["base"], dtype="float32"), 0.0
    for row in (rows[number] for number in range(3)):
        begin = 0
        for length in row["seq_lengths"]:
            ids = row["input_ids"][begin : begin + length]
            begin += length
            with torch.no_grad():
                scores = plain(torch.tensor([ids]), use_cache=False).logits[0].double().log_softmax(-1)
            expected -= sum(float(scores[at, token]) for at, token in enumerate(ids[1:]))
    assert float(loss) == pytest.approx(expected / int(counted), rel=1e-5)


@pytest.mark.parametrize("packing", [True, False])
def test_every_token_goes_through_the_model_once_in_every_epoch(sources, tmp_path, monkeypatch, packing):
    seen = []
    collate = RowCollator.__call__

    def counting(self, rows):
        if SHARE in rows[0]:  # the probe's rows have no part of an update
            seen.append(sum(len(row["input_ids"]) for row in rows))
        return collate(self, rows)

    monkeypatch.setattr(RowCollator, "__call__", counting)
    trained(sources, tmp_path / "out", max_steps=None, num_train_epochs=2.0, total_batch_size=6, packing=packing)
    facts = json.loads((tmp_path / "out" / "facts.json").read_text("utf-8"))
    assert facts["rows"] % 6, "the last batch of an epoch must be a smaller one, or its loss would not show"
    assert sum(seen) == facts["tokens_trained"] == 2 * facts["tokens_in"]


def test_the_rate_rises_for_the_share_of_the_warmup_and_then_falls_as_a_cosine(sources, tmp_path):
    rates = [line["learning_rate"] for line in trained(sources, tmp_path / "cosine", max_steps=8, warmup_ratio=0.25)]
    falling = [(1 + math.cos(math.pi * step / 6)) / 2 for step in range(6)]
    assert rates == pytest.approx([1e-2 * share for share in (0, 0.5, *falling)])
    flat = trained(sources, tmp_path / "flat", max_steps=3, warmup_ratio=0.0, lr_scheduler_type="constant")
    assert [line["learning_rate"] for line in flat] == [1e-2] * 3


def test_checkpointing_is_switched_on_and_changes_no_loss_while_another_seed_does(sources, tmp_path, monkeypatch):
    on = []
    compute = cpt.RowTrainer.compute_loss

    def looking(self, *args, **options):
        on.append(any(getattr(module, "gradient_checkpointing", False) for module in self.model.modules()))
        return compute(self, *args, **options)

    monkeypatch.setattr(cpt.RowTrainer, "compute_loss", looking)
    changes = {"kept": {}, "again": {"gradient_checkpointing": True}, "other": {"seed": 1}}
    kept, again, other = (
        [line["loss"] for line in trained(sources, tmp_path / name, max_steps=3, **changed)]
        for name, changed in changes.items()
    )
    assert on == [False] * 6 + [True] * 6 + [False] * 6
    assert again == pytest.approx(kept, rel=1e-5)
    assert other != pytest.approx(kept, rel=1e-3)


def test_a_4_bit_base_is_learnt_on_and_a_full_precision_one_is_not_the_same(sources, tmp_path):
    four = trained(sources, tmp_path / "nf4", quantization="nf4")
    whole = trained(sources, tmp_path / "whole")
    assert four[-1]["loss"] < four[0]["loss"]
    assert four[0]["loss"] != whole[0]["loss"] and four[0]["loss"] == pytest.approx(whole[0]["loss"], rel=0.1)


@pytest.mark.parametrize(
    ("kernel", "flat"),
    [("flash_attention_2", True), ("kernels-community/flash-attn2", True), ("sdpa", False), ("eager", False)],
)
def test_rows_are_laid_end_to_end_for_every_name_of_flash_attention(sources, tmp_path, kernel, flat):
    model = load_base(sources["base"], dtype="float32")
    model.config._attn_implementation_internal = kernel
    tokenizer = load_tokenizer(sources["base"])
    rows, _ = make_rows(read_texts(sources["corpus"], tmp_path / "cache"), tokenizer, 64, packing=True)
    trainer = cpt.make_trainer(model, tokenizer, rows, tiny.CPT, tmp_path / "work")
    assert trainer.data_collator.flat == flat
