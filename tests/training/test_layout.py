"""Which rows a base learns from, by what it makes of short texts: alone, in one row, padded, and in a batch."""

import pytest
import torch

from medllm.training import cpt, rpo
from medllm.training.cpt import make_rows, read_texts
from medllm.training.layout import Pieces, choose_pairs, choose_rows
from medllm.training.pair_batches import PairCollator, encode_pairs, read_pairs
from medllm.training.rpo import answer_logps
from medllm.weights.load import load_base, load_tokenizer
from medllm.weights.probing import narrowed
from tests import tiny
from tests.refusals import refused


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return tiny.make_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture
def rows(sources, tmp_path):
    """A trainer of rows on this base, or on another one."""

    def make(base=sources["base"], *, packing=True):
        tokenizer = load_tokenizer(base)
        table, _ = make_rows(read_texts(sources["corpus"], tmp_path / "cache"), tokenizer, 64, packing=packing)
        return cpt.make_trainer(load_base(base, dtype="float32"), tokenizer, table, tiny.CPT, tmp_path / "work")

    return make


@pytest.fixture
def pairs(sources, tmp_path):
    """A trainer of pairs on the base."""
    tokenizer = load_tokenizer(sources["base"])
    table, _ = encode_pairs(read_pairs(sources["preferences"], tmp_path / "cache"), tokenizer, 256)
    model = load_base(sources["base"], dtype="float32")
    settings = tiny.RPO.model_copy(update={"model": "base", "lora": tiny.CPT.lora})
    return rpo.make_trainer(model, tokenizer, table, settings, tmp_path / "work", say=print)


def changing_embeddings(trainer, change):
    """Let a function change what the model reads: rows x tokens x size."""
    table = trainer.model.get_input_embeddings()
    table.register_forward_hook(lambda _, __, found: found + change(found))


def by_all_before(found):
    return 0.3 * found.cumsum(1)


def by_all(found):
    return found.mean(1, keepdim=True)


def by_the_batch(found):
    return found.mean((0, 1), keepdim=True) * (len(found) > 1)


def test_a_base_that_keeps_documents_apart_learns_from_packed_rows(rows):
    trainer = rows()
    count = len(trainer.train_dataset)
    found = choose_rows(trainer)
    assert found.facts == {"packed": True, "rows_trained": count} and len(trainer.train_dataset) == count
    assert len(found.sentences) == 1 and not trainer.data_collator.flat


def test_a_base_whose_state_runs_on_learns_from_one_document_a_row(rows):
    trainer = rows()
    whole = [row["input_ids"] for row in trainer.train_dataset]
    documents = sum(len(row["seq_lengths"]) for row in trainer.train_dataset)
    changing_embeddings(trainer, by_all_before)
    found = choose_rows(trainer)
    assert found.facts == {"packed": False, "rows_trained": documents} and documents > len(whole)
    assert isinstance(trainer.train_dataset, Pieces)
    pieces = [trainer.train_dataset[number] for number in range(documents)]
    assert [token for row in pieces for token in row["input_ids"]] == [token for row in whole for token in row]
    assert all(row["seq_lengths"] == [len(row["input_ids"])] for row in pieces)


def test_rows_that_hold_one_document_each_are_not_called_packed(rows):
    assert choose_rows(rows(packing=False)).facts["packed"] is False


@pytest.mark.parametrize(
    ("change", "code"), [(by_all, "training.not-causal"), (by_the_batch, "training.no-row-layout")]
)
def test_a_base_that_reads_what_follows_or_another_text_is_refused(rows, change, code):
    trainer = rows()
    changing_embeddings(trainer, change)
    with refused(code, "`qwen2`"):
        choose_rows(trainer)


def test_attention_that_forgets_positions_is_noticed_in_windows_that_no_probe_is_as_long_as(tmp_path, rows):
    base = tiny.make_base(tmp_path / "llama4", family="llama4_text", floor_scale=8192)
    assert choose_rows(rows(base)).facts["packed"] is False, "its layers without positions count the tokens of a row"


def test_a_head_that_the_tiles_do_not_follow_is_computed_whole(rows):
    trainer = rows()
    trainer.whole = False
    choose_rows(trainer)
    assert trainer.whole is False
    trainer.model.get_output_embeddings().register_forward_hook(lambda _, __, found: 2 * found)
    found = choose_rows(trainer)
    assert trainer.whole is True and "whole" not in found.facts and "all logits" in found.sentences[0]


@pytest.mark.parametrize(
    ("change", "padding", "layout"),
    [
        (lambda found: 0 * found, 1.0, "one row"),
        (by_all_before, 0.0, "two rows"),
        (by_all_before, 1.0, "two rows, padded at the end"),
    ],
    ids=["attention", "a state that skips padding", "a state that runs through padding"],
)
def test_pairs_are_laid_out_as_the_base_scores_them_right(pairs, change, padding, layout):
    with torch.no_grad():  # a state adds up the vectors before a token, and so passes over one of zeros
        pairs.model.get_input_embeddings().weight[pairs.processing_class.pad_token_id] = padding
    changing_embeddings(pairs, change)
    assert choose_pairs(pairs).facts == {"layout": layout}
    assert pairs.data_collator.layout == layout


@pytest.mark.parametrize(
    ("change", "code"), [(by_all, "training.not-causal"), (by_the_batch, "training.no-pair-layout")]
)
def test_a_base_whose_answers_depend_on_what_follows_or_on_others_is_refused(pairs, change, code):
    changing_embeddings(pairs, change)
    with refused(code, "`qwen2`"):
        choose_pairs(pairs)


def test_every_layout_of_pairs_gives_the_same_probabilities_where_all_are_right(pairs):
    batch = [pairs.train_dataset[number] for number in range(3)]
    model = pairs.model.eval()
    with torch.no_grad():
        one, two, ends = (
            answer_logps(model, PairCollator(0, shared=shared, aligned=aligned)(batch))
            for shared, aligned in ((True, True), (False, True), (False, False))
        )
        tiled = answer_logps(model, PairCollator(0, shared=False, aligned=False)(batch), whole=False)
    for other in (two, ends, tiled):
        assert [torch.allclose(left, right, atol=1e-4) for left, right in zip(one, other, strict=True)] == [True] * 4


def test_one_mask_serves_a_model_whose_layers_all_have_a_window(tmp_path):
    base = tiny.make_base(tmp_path / "mistral", family="mistral", sliding_window=8)
    model = load_base(base, dtype="float32")
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 300, (1, 60), generator=draw)[0].tolist()
    batch = [{"prompt_ids": ids[:20], "chosen_ids": ids[20:45], "rejected_ids": ids[45:], "pair": 0}]
    with torch.no_grad():
        rows = answer_logps(model, PairCollator(0, shared=False)(batch))
        near, far = (
            answer_logps(model, PairCollator(0, shared=True, window=window, mixed=False)(batch)) for window in (8, None)
        )
    assert torch.allclose(near[1], rows[1], atol=1e-4) and not torch.allclose(far[1], rows[1], atol=0.1)


def test_windows_are_narrow_within_a_probe_alone(tmp_path):
    model = load_base(tiny.make_base(tmp_path / "base", family="gemma3_text", sliding_window=512), dtype="float32")
    parts = [model.config, *(module for module in model.modules() if getattr(module, "sliding_window", None))]
    assert len(parts) == 2
    with narrowed(model):
        assert [part.sliding_window for part in parts] == [8, 8]
    assert [part.sliding_window for part in parts] == [512, 512]
