"""Preference pairs as conversations: trained on the very tokens that were served, other people's rows, bad rows."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medllm.generation.engine.batching import BatchLimits, PromptReader, plan
from medllm.generation.types import Request
from medllm.recipe.base import settings_for_digest
from medllm.recipe.settings import Rpo
from medllm.training.load import chat_template_for
from medllm.training.pair_batches import VALUES, encode_pairs, read_pairs
from medllm.weights.chat_template import ChatTemplate
from tests import tiny
from tests.refusals import refused
from tests.weights.test_chat_template import FAMILIES, TALK, texts

REPLY = [{"role": "assistant", "content": "答え: b"}]
OTHER = [{"role": "assistant", "content": "答え: c"}]


@pytest.fixture(scope="module")
def tokenizers():
    return {name: tiny.make_chat_tokenizer(tiny.published_template(name)) for name in FAMILIES}


def written(folder, **columns):
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table({name: [value] for name, value in columns.items()}), folder / "train.parquet")
    return folder


def encoded(table, tokenizer):
    pairs, _ = encode_pairs(table, tokenizer, 4096, ChatTemplate(tokenizer, tokenizer.chat_template, "m"))
    return pairs[0]


@pytest.mark.parametrize("family", FAMILIES)
@given(question=texts, answer=texts, thinks=st.booleans())
@settings(max_examples=5, deadline=None)
def test_the_prompt_that_is_trained_is_the_prompt_that_is_served(tokenizers, family, question, answer, thinks):
    from datasets import Dataset

    tokenizer = tokenizers[family]
    talk = [*TALK[:3], {"role": "user", "content": question}]
    values = {"enable_thinking": thinks, "thinking": thinks}
    sides = {"chosen": [{"role": "assistant", "content": answer}], "rejected": OTHER}
    row = {name: json.dumps(value) for name, value in {"prompt": talk, **sides, VALUES: values}.items()}
    pair = encoded(Dataset.from_list([row]), tokenizer)
    style = "think" if thinks else "plain"
    request = Request(key="q", text="", messages=tuple(talk), style=style, max_new_tokens=4)
    [batch], _ = plan([request], PromptReader(tokenizer, {"base": tokenizer.chat_template}), BatchLimits(4, 9999, 9999))
    assert pair["prompt_ids"] == [*batch.prefix, *batch.tokens[0]]
    ends = ChatTemplate(tokenizer, tokenizer.chat_template, "m").ends
    assert pair["chosen_ids"][-1] in ends and pair["rejected_ids"][-1] in ends


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_conversations_of_other_people_are_read_as_trl_has_them(tmp_path, tokenizers, form):
    row = {"prompt": TALK, "chosen": REPLY, "rejected": OTHER}
    if form == "parquet":
        written(tmp_path / "pairs", **row)
    else:
        (tmp_path / "pairs").mkdir()
        (tmp_path / "pairs" / "a.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", "utf-8")
    table = read_pairs(tmp_path / "pairs", tmp_path / "cache")
    assert table.column_names == ["prompt", "chosen", "rejected", VALUES] and table[VALUES] == [""]
    pair = encoded(table, tokenizers["qwen3"])
    decoded = tokenizers["qwen3"].decode(pair["prompt_ids"]) + tokenizers["qwen3"].decode(pair["chosen_ids"])
    assert decoded.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n答え: b<|im_end|>")


def test_a_reply_with_thinking_is_trained_with_its_thinking_where_the_model_was_asked_to_think(tmp_path, tokenizers):
    chosen = [{**REPLY[0], "reasoning_content": "発熱を考える"}]
    values = {"enable_thinking": True}
    folder = written(tmp_path / "pairs", prompt=TALK, chosen=chosen, rejected=OTHER, chat_template_kwargs=values)
    pair = encoded(read_pairs(folder, tmp_path / "cache"), tokenizers["qwen3"])
    decode = tokenizers["qwen3"].decode
    assert decode(pair["chosen_ids"]) == "<think>\n発熱を考える\n</think>\n\n答え: b<|im_end|>"
    assert decode(pair["rejected_ids"]) == "<think>\n\n</think>\n\n答え: c<|im_end|>"


def test_rows_that_are_no_conversation_with_one_reply_are_refused(tmp_path, tokenizers):
    two = [{"role": "user", "content": "なぜ"}, *REPLY]
    for number, (changed, code) in enumerate(
        [
            ({"chosen": two}, "training.not-one-reply"),
            ({"rejected": [{"role": "user", "content": "b"}]}, "training.not-one-reply"),
            ({"chosen": [{"role": "assistant", "text": "b"}]}, "training.not-messages"),
            ({"rejected": "答え: c"}, "training.not-messages"),
        ]
    ):
        row = {"prompt": TALK, "chosen": REPLY, "rejected": OTHER, **changed}
        table = read_pairs(written(tmp_path / f"{number}", **row), tmp_path / "cache")
        with refused(code, "pair 1", f"`{next(iter(changed))}`"):
            encoded(table, tokenizers["qwen3"])


def test_pairs_of_texts_are_conversations_only_where_the_recipe_wants_it(tmp_path):
    base = tiny.make_scripted(tmp_path / "base")
    bare = tiny.make_base(tmp_path / "bare")
    tokenizer = tiny.make_chat_tokenizer(tiny.published_template("qwen3"))

    def chosen(form, model, *, talks):
        given = {"base": model, "cpt": model, "preferences": tmp_path}
        return chat_template_for(Rpo(model="cpt", rpo_alpha=1, format=form), given, tokenizer, talks=talks)

    assert chosen("auto", base, talks=False) is None and chosen("completion", base, talks=False) is None
    assert chosen("chat", base, talks=False) and chosen("auto", base, talks=True)
    with refused("training.conversations-as-text", "`rpo.format: completion`"):
        chosen("completion", base, talks=True)
    with refused("training.no-chat-template", bare):
        chosen("auto", bare, talks=True)


def test_a_text_as_what_the_user_writes_gets_a_reply_of_the_assistant(tmp_path, tokenizers):
    folder = written(tmp_path / "pairs", prompt="問題: 発熱\n答え:", chosen="\nb", rejected="\nc")
    pair = encoded(read_pairs(folder, tmp_path / "cache"), tokenizers["qwen2_5"])
    decode = tokenizers["qwen2_5"].decode
    assert decode(pair["prompt_ids"]).endswith("<|im_start|>user\n問題: 発熱\n答え:<|im_end|>\n<|im_start|>assistant\n")
    assert decode(pair["chosen_ids"]) == "b<|im_end|>"


def test_an_rpo_that_names_no_format_keeps_its_digest():
    dump = settings_for_digest(Rpo(model="cpt", rpo_alpha=10))
    assert "format" not in dump
    assert settings_for_digest(Rpo(model="cpt", rpo_alpha=10, format="chat")) == {**dump, "format": "chat"}
