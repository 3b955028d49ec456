"""Rows of tokens: no text lost, no document seen by another, every token in the account."""

import pytest

from medllm.training.cpt import IGNORED, RowCollator, make_rows, read_texts
from tests import tiny
from tests.refusals import refused


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tiny.make_corpus(tmp_path_factory.mktemp("corpus"), longest=120)
    return read_texts(folder, folder / "cache")


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.make_tokenizer()


@pytest.mark.parametrize("packing", [True, False])
def test_every_token_of_every_document_is_in_a_row_and_counted(texts, tokenizer, packing):
    rows, tally = make_rows(texts, tokenizer, 32, packing=packing)
    documents = [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in texts["text"]]
    assert max(map(len, documents)) > 32, "some documents must be longer than a row, or nothing is tried"
    assert tally.tokens_in == tally.tokens_in_rows == sum(map(len, documents))
    pieces = []
    for row in rows:
        assert len(row["input_ids"]) == sum(row["seq_lengths"]) <= 32
        begin = 0
        for length in row["seq_lengths"]:
            pieces.append(tuple(row["input_ids"][begin : begin + length]))
            begin += length
    cut = [tuple(ids[at : at + 32]) for ids in documents for at in range(0, len(ids), 32)]
    assert sorted(pieces) == sorted(cut)
    assert tally.pieces == len(cut)


def test_trls_default_packing_would_lose_text(texts, tokenizer):
    from trl import pack_dataset

    tokens = texts.map(lambda batch: {"input_ids": tokenizer(batch["text"])["input_ids"]}, batched=True)
    packed = pack_dataset(tokens.select_columns(["input_ids"]), 32, "bfd")
    assert sum(map(len, packed["input_ids"])) < sum(map(len, tokens["input_ids"]))


def test_a_packing_that_loses_text_stops_the_run_before_it_starts(texts, tokenizer, monkeypatch):
    import trl

    monkeypatch.setattr(trl, "pack_dataset", lambda rows, length, way, pack=trl.pack_dataset: pack(rows, length, "bfd"))
    with refused("training.packing-lost-text", "40 documents"):
        make_rows(texts, tokenizer, 32, packing=True)


@pytest.mark.parametrize("family", ["qwen2", "gemma3_text"])
@pytest.mark.parametrize("flat", [False, True])
def test_packed_documents_do_not_see_each_other(tmp_path, tokenizer, flat, family):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny.make_base(tmp_path, family=family), dtype=torch.float32).eval()
    documents = [tokenizer(text)["input_ids"] for text in tiny.sentences(4, seed=8)]
    rows = [
        {"input_ids": documents[0] + documents[1], "seq_lengths": [len(documents[0]), len(documents[1])]},
        {"input_ids": documents[2] + documents[3], "seq_lengths": [len(documents[2]), len(documents[3])]},
    ]
    batch = RowCollator(tokenizer.pad_token_id, flat=flat)(rows)
    with torch.no_grad():
        packed = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
        alone = torch.cat([model(torch.tensor([ids]), use_cache=False).logits[0] for ids in documents])
    lengths = [sum(row["seq_lengths"]) for row in rows]
    together = packed[0] if flat else torch.cat([packed[0, : lengths[0]], packed[1, : lengths[1]]])
    assert together.shape == alone.shape
    assert float((together - alone).abs().max()) < 1e-4


def test_a_documents_first_token_is_not_predicted_from_its_neighbour(tokenizer):
    batch = RowCollator(tokenizer.pad_token_id)([{"input_ids": [5, 6, 7, 8, 9], "seq_lengths": [2, 3]}])
    assert batch["labels"].tolist() == [[IGNORED, 6, IGNORED, 8, 9]]
    assert batch["position_ids"].tolist() == [[0, 1, 0, 1, 2]]


def test_a_corpus_without_a_text_column_is_refused_by_name(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"body": "x"}\n', "utf-8")
    with refused("training.missing-column", tmp_path, "`text`", "body"):
        read_texts(tmp_path, tmp_path / "cache")
    (tmp_path / "a.jsonl").unlink()
    with refused("training.no-table", tmp_path):
        read_texts(tmp_path, tmp_path / "cache")


def test_rows_for_flash_attention_say_where_their_documents_end():
    rows = [{"input_ids": [5, 6, 7], "seq_lengths": [2, 1]}, {"input_ids": [8, 9], "seq_lengths": [2]}]
    batch = RowCollator(0, flat=True)(rows)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9]]
    assert batch["cu_seq_lens_q"].tolist() == batch["cu_seq_lens_k"].tolist() == [0, 2, 3, 5]
    assert (batch["max_length_q"], batch["max_length_k"]) == (2, 2)
    assert str(batch["cu_seq_lens_q"].dtype) == "torch.int32", "as the kernels want it"
    assert "cu_seq_lens_q" not in RowCollator(0)(rows)
