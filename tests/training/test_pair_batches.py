"""Preference pairs as they come: other people's columns, none at all, and a boundary that two tokens share."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medllm.training.pair_batches import encode_pairs, read_pairs
from tests import tiny
from tests.refusals import refused

PAIR = {"prompt": ["問題"], "chosen": ["解説"], "rejected": ["答え"]}


def written(folder, columns):
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), folder / "train.parquet")
    return folder


def test_pairs_without_a_column_are_refused_with_place_what_there_is_and_the_mend(tmp_path):
    folder = written(tmp_path / "pairs", {"question": ["問題"], "chosen": ["解説"]})
    with refused("training.missing-column", folder, "`prompt`, `rejected`", "question, chosen"):
        read_pairs(folder, tmp_path / "cache")


def test_pairs_without_the_bare_prompt_cannot_drop_their_examples_but_can_keep_them(tmp_path):
    folder = written(tmp_path / "pairs", PAIR)
    with refused("training.missing-column", folder, "`prompt_without_shots`"):
        read_pairs(folder, tmp_path / "cache", keep_exemplars=False)
    assert read_pairs(folder, tmp_path / "cache")["prompt"] == PAIR["prompt"]


def test_a_folder_without_pairs_is_refused(tmp_path):
    with refused("training.no-table", tmp_path, "pairs"):
        read_pairs(tmp_path, tmp_path / "cache")
    empty = {name: pa.array([], pa.string()) for name in PAIR}
    with refused("training.no-rows", tmp_path / "empty", "pair"):
        read_pairs(written(tmp_path / "empty", empty), tmp_path / "cache")


def test_an_empty_file_beside_a_full_one_changes_nothing_and_a_broken_one_is_named(tmp_path):
    folder = written(tmp_path / "pairs", PAIR)
    pq.write_table(pa.table({name: pa.array([], pa.string()) for name in PAIR}), folder / "z.parquet")
    assert len(read_pairs(folder, tmp_path / "cache")) == 1
    (folder / "broken.parquet").write_bytes(b"PAR1 and then nothing of the kind")
    with refused("training.broken-table", folder / "broken.parquet"):
        read_pairs(folder, tmp_path / "cache")
    (tmp_path / "lines").mkdir()
    (tmp_path / "lines" / "a.jsonl").write_text('{"prompt": "a", "cho', "utf-8")
    with refused("training.broken-table", "a.jsonl line 1"):
        read_pairs(tmp_path / "lines", tmp_path / "cache")


def test_columns_that_training_does_not_use_do_not_matter(tmp_path):
    pair = {key: one for key, [one] in PAIR.items()}
    for name, more in (("a", {}), ("b", {"score": 1}), ("c", {"score": "high", "tags": [1, {"x": None}]})):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(pair | more, ensure_ascii=False) + "\n", "utf-8")
    assert read_pairs(tmp_path, tmp_path / "cache").to_list() == [pair] * 3


def test_lines_of_json_beside_parquet_are_read_too_and_what_is_not_read_is_named(tmp_path):
    folder = written(tmp_path / "pairs", PAIR)
    pair = {key: one for key, [one] in PAIR.items()}
    (folder / "more.jsonl").write_text(json.dumps(pair) + "\n\n" + json.dumps(pair) + "\n", "utf-8")
    assert read_pairs(folder, tmp_path / "cache").to_list() == [pair] * 3
    (folder / "rest.csv").write_text("prompt,chosen,rejected\na,b,c\n", "utf-8")
    with refused("training.unread-format", folder / "rest.csv"):
        read_pairs(folder, tmp_path / "cache")


@pytest.mark.parametrize(
    ("row", "code", "values"),
    [
        ({"chosen": None}, "empty-value", ["`chosen`"]),
        ({"chosen": [{"role": "assistant", "content": "b"}]}, "not-text", ["`chosen`", "list"]),
        ({"chosen": 3}, "not-text", ["`chosen`", "int"]),
        (["prompt"], "broken-table", []),
    ],
)
def test_a_row_that_cannot_be_learnt_is_named_with_its_file_and_line(tmp_path, row, code, values):
    good = {key: one for key, [one] in PAIR.items()}
    bad = good | row if isinstance(row, dict) else row
    (tmp_path / "a.jsonl").write_text(json.dumps(good) + "\n" + json.dumps(bad) + "\n", "utf-8")
    with refused(f"training.{code}", "a.jsonl line 2", *values):
        read_pairs(tmp_path, tmp_path / "cache")


def test_a_row_of_parquet_without_a_text_and_a_column_of_chats_are_named(tmp_path):
    folder = written(tmp_path / "pairs", {**{key: one * 2 for key, one in PAIR.items()}, "chosen": ["b", None]})
    with refused("training.empty-value", "train.parquet row 2", "`chosen`"):
        read_pairs(folder, tmp_path / "cache")
    chats = [[{"role": "user", "content": "問題"}]]
    with refused("training.not-text", "train.parquet", "`chosen`", "list<"):
        read_pairs(written(folder, PAIR | {"chosen": chats}), tmp_path / "cache")


def test_an_edited_file_of_lines_is_read_again(tmp_path):
    pair = {key: one for key, [one] in PAIR.items()}
    for number in (1, 2):
        (tmp_path / "a.jsonl").write_text((json.dumps(pair) + "\n") * number, "utf-8")
        assert len(read_pairs(tmp_path, tmp_path / "cache")) == number


def test_pairs_are_read_from_lines_of_json_too(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "問題", "chosen": "解説", "rejected": "答え", "more": 1}\n', "utf-8")
    assert read_pairs(tmp_path, tmp_path / "cache").to_list() == [{key: one for key, [one] in PAIR.items()}]


def test_an_answer_is_tokenized_as_generation_sees_it_and_ends_with_the_end_mark(tmp_path):
    tokenizer = tiny.make_tokenizer()
    pairs, tally = encode_pairs(read_pairs(tiny.make_pairs(tmp_path / "p"), tmp_path / "c"), tokenizer, 512)
    assert tally.trained == tally.pairs == len(pairs) == 16
    for row, pair in zip(pairs, read_pairs(tmp_path / "p", tmp_path / "c"), strict=True):
        assert row["chosen_ids"][-1] == row["rejected_ids"][-1] == tokenizer.eos_token_id
        assert tokenizer.decode(row["prompt_ids"]) == pair["prompt"]
        assert tokenizer.decode(row["chosen_ids"][:-1]) == pair["chosen"]
        assert tokenizer.decode(row["rejected_ids"][:-1]) == pair["rejected"]


def test_an_answer_that_would_share_a_token_with_its_prompt_is_split_where_the_prompt_ends_and_counted(tmp_path):
    tokenizer = tiny.make_tokenizer()
    columns = {
        "prompt": ["解説: 患", "解説:"],
        "chosen": ["者の発熱", "患者の発熱"],
        "rejected": ["部の痛み", "胸部の痛み"],
    }
    prompt, whole = (tokenizer(text)["input_ids"] for text in ("解説: 患", "解説: 患者の発熱"))
    assert whole[: len(prompt)] != prompt, "two tokens must merge over the boundary, or nothing is tried"
    pairs, tally = encode_pairs(read_pairs(written(tmp_path / "p", columns), tmp_path / "c"), tokenizer, 64)
    assert (tally.split_at_prompt, tally.trained) == (1, 2)
    assert pairs[0]["prompt_ids"] == prompt
    assert pairs[0]["chosen_ids"] == [*tokenizer("者の発熱")["input_ids"], tokenizer.eos_token_id]


def test_a_pair_of_just_max_length_is_trained_and_one_token_more_is_left_out_whole_and_counted(tmp_path):
    tokenizer = tiny.make_tokenizer()
    table = read_pairs(tiny.make_pairs(tmp_path / "p"), tmp_path / "c")
    longest = encode_pairs(table, tokenizer, 4096)[1].longest
    fits, all_of_them = encode_pairs(table, tokenizer, longest)
    assert (all_of_them.too_long, all_of_them.trained) == (0, 16)
    pairs, tally = encode_pairs(table, tokenizer, longest - 1)
    assert tally.too_long >= 1 and tally.trained == 16 - tally.too_long and tally.longest == longest
    whole = {row["pair"]: row for row in fits}
    assert all(row == whole[row["pair"]] for row in pairs), "what is kept is kept uncut"
