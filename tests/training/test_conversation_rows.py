"""Conversations as rows: the assistant's tokens are learnt, each turn once, after the prompt that asks for it."""

import json

import pytest

from medllm.recipe.settings import Sft
from medllm.training.conversations import (
    Conversation,
    TurnWriter,
    conversation_of,
    encode_conversations,
    fill_rows,
    writer_of,
)
from medllm.training.cpt import IGNORED, RowCollator
from medllm.training.layout import Pieces
from medllm.weights.chat_template import ChatTemplate
from tests import tiny
from tests.refusals import refused
from tests.weights.test_chat_template import FAMILIES

TALK = [
    {"role": "system", "content": "医師国家試験を解きます。"},
    {"role": "user", "content": "問題: 発熱\n答え:"},
    {"role": "assistant", "content": "診断は a です"},
    {"role": "user", "content": "問題: 咳嗽\n答え:"},
    {"role": "assistant", "content": "治療は b です"},
]
THOUGHT = [
    TALK[1],
    {**TALK[2], "reasoning_content": "胸部を考える"},
    TALK[3],
    {**TALK[4], "reasoning_content": "腎を考える"},
]


@pytest.fixture(scope="module")
def tokenizers():
    return {name: tiny.make_chat_tokenizer(tiny.published_template(name)) for name in FAMILIES}


def block(**changed) -> Sft:
    return Sft(data=["./talks"], **changed)


def writer(tokenizer, **changed) -> TurnWriter:
    return writer_of(tokenizer, ChatTemplate(tokenizer, tokenizer.chat_template, "m"), block(**changed))


def spans(tokenizer, ids, learnt) -> list[str]:
    """The texts that are learnt in a row, each stretch of learnt tokens for itself."""
    stretches, before = [], False
    for token, now in zip(ids, learnt, strict=True):
        if now and not before:
            stretches.append([])
        if now:
            stretches[-1].append(token)
        before = now
    return [tokenizer.decode(stretch) for stretch in stretches]


@pytest.mark.parametrize("family", FAMILIES)
def test_each_turn_of_the_assistant_is_learnt_once_with_its_end_mark_and_nothing_else_is(tokenizers, family):
    tokenizer = tokenizers[family]
    own = writer(tokenizer)
    pieces = own.pieces(Conversation("row 1", tuple(TALK)))
    stretches = [stretch for ids, learnt in pieces for stretch in spans(tokenizer, ids, learnt)]
    assert len(stretches) == 2
    for stretch, turn in zip(stretches, (TALK[2], TALK[4]), strict=True):
        assert turn["content"] in stretch
        assert tokenizer.convert_tokens_to_ids(tokenizer.tokenize(stretch)[-1]) in own.chat.ends
        assert not any(other["content"] in stretch for other in TALK if other is not turn)
    for ids, learnt in pieces:
        unlearnt = tokenizer.decode([token for token, now in zip(ids, learnt, strict=True) if not now])
        assert "問題: 発熱" in unlearnt and not learnt[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_turn_is_learnt_after_the_very_prompt_that_generation_gives_the_model(tokenizers, family):
    tokenizer = tokenizers[family]
    own = writer(tokenizer)
    pieces = own.pieces(Conversation("row 1", tuple(TALK)))
    prompts = [own.chat.prompt(TALK[:at]) for at in (2, 4)]
    seen = []
    for ids, learnt in pieces:
        begins = [at for at, now in enumerate(learnt) if now and not learnt[at - 1]]
        seen += [ids[:at] for at in begins]
    assert seen == prompts


@pytest.mark.parametrize("family", ["qwen2_5", "llama3", "qwen3_instruct_2507", "gemma"])
def test_the_learnt_words_are_those_that_trls_template_with_generation_marks_has(tokenizers, family):
    tokenizer = tokenizers[family]
    talk = TALK if family != "gemma" else TALK[1:]
    marked = tokenizer.apply_chat_template(
        talk,
        chat_template=tiny.published_template(f"{family}_training"),
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    theirs = [token for token, now in zip(marked["input_ids"], marked["assistant_masks"], strict=True) if now]
    [(ids, learnt)] = writer(tokenizer).pieces(Conversation("row 1", tuple(talk)))
    ours = [token for token, now in zip(ids, learnt, strict=True) if now]
    assert "".join(tokenizer.decode(ours).split()) == "".join(tokenizer.decode(theirs).split())


def test_thinking_is_learnt_and_a_turn_after_dropped_thinking_has_a_row_of_its_own(tokenizers):
    tokenizer = tokenizers["qwen3"]
    first, second = writer(tokenizer).pieces(Conversation("row 1", tuple(THOUGHT)))
    assert spans(tokenizer, *first) == ["<think>\n胸部を考える\n</think>\n\n診断は a です<|im_end|>"]
    assert spans(tokenizer, *second) == ["<think>\n腎を考える\n</think>\n\n治療は b です<|im_end|>"]
    asked = tokenizer.decode([token for token, now in zip(*second, strict=True) if not now])
    assert "診断は a です" in asked and "胸部を考える" not in asked, "Qwen3's template drops the thinking of past turns"


def test_turns_without_thinking_share_a_row_where_the_template_writes_past_turns_as_last_ones(tokenizers):
    [(ids, learnt)] = writer(tokenizers["qwen2_5"]).pieces(Conversation("row 1", tuple(TALK)))
    assert spans(tokenizers["qwen2_5"], ids, learnt) == ["診断は a です<|im_end|>", "治療は b です<|im_end|>"]


def test_thinking_that_the_template_leaves_out_is_refused_with_the_row(tokenizers):
    with refused("weights.template-drops-thinking", "row 7"):
        writer(tokenizers["gemma3"]).pieces(Conversation("row 7", tuple(THOUGHT)))


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking", "inline"])
def test_thinking_is_read_under_each_publishers_name(key):
    reply = {"role": "assistant", "content": "b"}
    reply |= {"content": "<think>\n胸部\n</think>\n\nb"} if key == "inline" else {key: "胸部"}
    conversation = conversation_of({"messages": [TALK[1], reply]}, "row 1")
    assert conversation.messages[1] == {"role": "assistant", "content": "b", "reasoning_content": "胸部"}
    assert "胸部" in conversation.text, "the audit sees the thinking too"


def test_a_system_message_goes_before_the_first_question_where_the_template_refuses_one(tokenizers):
    tokenizer = tokenizers["gemma"]
    own = writer(tokenizer)
    assert not own.chat.takes_system
    [(ids, learnt)] = own.pieces(Conversation("row 1", tuple(TALK)))
    assert "<start_of_turn>user\n医師国家試験を解きます。\n\n問題: 発熱" in tokenizer.decode(ids)
    assert spans(tokenizer, ids, learnt) == ["診断は a です<end_of_turn>", "治療は b です<end_of_turn>"]


def test_a_system_prompt_of_the_recipe_is_for_conversations_without_one(tokenizers):
    tokenizer = tokenizers["qwen2_5"]
    own = writer(tokenizer, system_prompt="短く答えます。")
    [(ids, _)] = own.pieces(Conversation("row 1", tuple(TALK[1:])))
    assert tokenizer.decode(ids).startswith("<|im_start|>system\n短く答えます。<|im_end|>")
    [(ids, _)] = own.pieces(Conversation("row 1", tuple(TALK)))
    assert "短く答えます。" not in tokenizer.decode(ids)


def test_of_prompt_and_completion_the_completion_is_learnt_as_a_text_or_as_a_conversation(tokenizers):
    tokenizer = tokenizers["qwen2_5"]
    conversation = conversation_of({"prompt": "問題: 発熱\n答え:", "completion": "b"}, "row 1")
    [(ids, learnt)] = writer(tokenizer).pieces(conversation)
    assert tokenizer.decode(ids) == "問題: 発熱\n答え:b<|endoftext|>"
    assert spans(tokenizer, ids, learnt) == ["b<|endoftext|>"]
    [(ids, learnt)] = writer(tokenizer, format="chat").pieces(conversation)
    assert spans(tokenizer, ids, learnt) == ["b<|im_end|>"]
    talk = conversation_of({"prompt": TALK[:4], "completion": TALK[4:]}, "row 1")
    [(ids, learnt)] = writer(tokenizer).pieces(talk)
    assert spans(tokenizer, ids, learnt) == ["治療は b です<|im_end|>"], "the turns of a prompt are only read"


def test_every_token_is_learnt_where_the_recipe_wants_more_than_the_assistant(tokenizers):
    [(ids, learnt)] = writer(tokenizers["qwen2_5"], assistant_only_loss=False).pieces(Conversation("r", tuple(TALK)))
    assert all(learnt) and len(learnt) == len(ids)


def test_rows_of_other_publishers_are_read():
    turns = [{"from": "system", "value": "s"}, {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    assert [message["role"] for message in conversation_of({"conversations": turns}, "row 1").messages] == [
        *("system", "user", "assistant")
    ]
    mapped = conversation_of({"frage": "q", "antwort": "a"}, "row 1", {"prompt": "frage", "completion": "antwort"})
    assert mapped.continued == ("q", "a")
    parts = [{"role": "user", "content": [{"type": "text", "text": "q"}]}, {"role": "assistant", "content": "a"}]
    assert conversation_of({"messages": parts}, "row 1").messages[0]["content"] == "q"


@pytest.mark.parametrize(
    ("row", "code", "value"),
    [
        ({"messages": TALK[:2]}, "training.no-assistant-turn", "row 3"),
        ({"messages": [*TALK[1:3], {"role": "tool", "content": "x"}]}, "training.wrong-role", "message 3"),
        ({"messages": [TALK[1], TALK[0], TALK[2]]}, "training.wrong-role", "message 2"),
        ({"messages": [TALK[0], TALK[2]]}, "training.wrong-role", "message 2"),
        ({"messages": [*TALK[1:3], TALK[4]]}, "training.wrong-role", "message 3"),
        ({"messages": [TALK[1], {"role": "assistant", "content": " \n"}]}, "training.empty-message", "message 2"),
        ({"messages": [TALK[1], {"role": "assistant", "content": None}]}, "training.not-messages", "`messages`"),
        ({"messages": "患者"}, "training.not-messages", "`messages`"),
        ({"prompt": "q", "completion": "  "}, "training.empty-message", "completion"),
        ({"prompt": "q", "completion": TALK[2:3]}, "training.not-messages", "`prompt`"),
        ({"question": "q", "answer": "a"}, "training.no-conversation", "question, answer"),
    ],
)
def test_a_row_that_is_no_conversation_is_refused_by_its_place(row, code, value):
    with refused(code, "row 3", value):
        conversation_of(row, "row 3")


def test_a_conversation_longer_than_a_row_stops_the_training_or_is_left_out_whole(tokenizers):
    tokenizer = tokenizers["qwen2_5"]
    long = ({"role": "user", "content": "患者" * 150}, TALK[2])
    talks = [Conversation("row 1", tuple(TALK)), Conversation("row 2", long)]
    with refused("training.conversation-too-long", "row 2", "`max_length` 120"):
        encode_conversations(talks, writer(tokenizer), 120)
    rows, tally = encode_conversations(talks, writer(tokenizer, on_too_long="drop"), 120)
    assert rows["conversation"] == [0] and (tally.trained, tally.too_long, tally.turns) == (1, 1, 2)
    with refused("training.all-too-long", "2 conversations", "16"):
        encode_conversations(talks, writer(tokenizer, on_too_long="drop"), 16)


@pytest.mark.parametrize("packing", [True, False])
def test_packed_rows_keep_what_is_learnt_of_each_conversation_and_lose_no_token(tokenizers, packing):
    tokenizer = tokenizers["qwen2_5"]
    talks = [Conversation(f"row {n}", (*TALK[:2], {**TALK[2], "content": text})) for n, text in
             enumerate(tiny.sentences(12, seed=9))]  # fmt: skip
    pieces, tally = encode_conversations(talks, writer(tokenizer), 256)
    rows = fill_rows(pieces, 256, packing=packing)
    assert (len(rows) < 12) == packing
    batch = RowCollator(tokenizer.pad_token_id)(list(rows))
    learnt = batch["labels"] != IGNORED
    assert int(learnt.sum()) == tally.learnt == sum(map(sum, pieces["learnt"]))
    assert bool((batch["labels"][learnt] == batch["input_ids"][learnt]).all())
    words = sorted(spans(tokenizer, ids, now) for ids, now in zip(pieces["input_ids"], pieces["learnt"], strict=True))
    alone = [Pieces(rows)[number] for number in range(12)]
    assert sorted(spans(tokenizer, row["input_ids"], row["learnt"]) for row in alone) == words
    flat = RowCollator(tokenizer.pad_token_id, flat=True)(list(rows))
    assert int((flat["labels"] != IGNORED).sum()) == tally.learnt


def test_the_digest_of_a_training_names_each_key_that_changes_its_tokens():
    from medllm.recipe.base import settings_for_digest

    dump = settings_for_digest(block())
    assert dump["assistant_only_loss"] is True and dump["packing"] is True and json.dumps(dump)
    assert settings_for_digest(block(on_too_long="drop")) != dump
