"""Conversations as tokens: as servers write them, with marks from the template alone, and bad templates refused."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medllm.errors import ModelError
from medllm.training.checkpointing import write_tokenizer
from medllm.weights.chat_template import DAY, PLAIN, ChatTemplate, own_template
from medllm.weights.load import TextTokens, end_marks, load_tokenizer
from tests import tiny
from tests.refusals import refused

FAMILIES = (
    *("qwen2_5", "qwen3", "qwen3_instruct_2507", "qwen3_5_think", "qwen3_8", "llama3", "llama3_1", "phi3", "cohere2"),
    *("gemma", "gemma3", "gemma4", "gemma4_v5", "glm4moe", "gptoss", "deepseek_r1_distill", "nemotron_3_nano", "lfm2"),
    *("llava_next", "smolvlm", "muse_glimmer"),
)
OPENS = {"qwen3_5_think", "qwen3_8", "nemotron_3_nano", "deepseek_r1_distill"}
"""Families whose prompt begins the thinking itself."""
ENDS = {
    **{"llama3": "<|eot_id|>", "llama3_1": "<|eot_id|>", "phi3": "<|end|>", "cohere2": "<|END_OF_TURN_TOKEN|>"},
    **{"gemma": "<end_of_turn>", "gemma3": "<end_of_turn>", "gemma4": "<turn|>", "gemma4_v5": "<turn|>"},
    **{"glm4moe": "<|endoftext|>", "gptoss": "<|return|>", "deepseek_r1_distill": "<｜end▁of▁sentence｜>"},
    **{"llava_next": "</s>", "smolvlm": "<end_of_utterance>", "muse_glimmer": "<|eot|>"},
}
"""What ends a reply, where it is not `<|im_end|>`."""
TALK = [
    {"role": "system", "content": "医師国家試験を解きます。"},
    {"role": "user", "content": "問題: 発熱\n答え:"},
    {"role": "assistant", "content": "a"},
    {"role": "user", "content": "問題: 咳嗽\n答え:"},
]
texts = st.text(st.sampled_from("患者発熱ab<>|/ \n:、１é"), min_size=1).filter(lambda text: text.strip())


@pytest.fixture(scope="module")
def chats():
    found = {}
    for family in FAMILIES:
        template = tiny.published_template(family)
        found[family] = ChatTemplate(tiny.make_chat_tokenizer(template), template, family)
    return found


def served(chat, messages, **values):
    """What a server makes of a conversation: transformers' own rendering and reading."""
    if chat._parts:
        messages = [{**one, "content": [{"type": "text", "text": one["content"]}]} for one in messages]
    options = {"tokenize": True, "return_dict": False, "add_generation_prompt": True}
    return chat.tokenizer.apply_chat_template(messages, chat_template=chat.text, **options, **values)


@pytest.mark.parametrize("family", FAMILIES)
@given(shots=st.lists(st.tuples(texts, texts), max_size=2), question=texts, thinks=st.booleans(), system=st.booleans())
@settings(max_examples=15, deadline=None)
def test_the_tokens_of_a_conversation_are_those_that_a_server_makes(chats, family, shots, question, thinks, system):
    chat = chats[family]
    talk = TALK[:1] if system and chat.takes_system else []
    for asked, answered in shots:
        talk = [*talk, {"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    talk = [*talk, {"role": "user", "content": question}]
    values = {"enable_thinking": thinks, "thinking": thinks}
    assert chat.prompt(talk, thinks=thinks) == served(chat, talk, **values)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_reply_goes_on_from_its_prompt_and_ends_with_the_mark_of_its_family(chats, family):
    chat, thought = chats[family], "発熱を考える"
    plain = chat.reply(TALK, "解説\n答え: b")
    ids = chat.tokenizer.convert_tokens_to_ids
    assert plain[-1] == chat.end == ids(ENDS.get(family, "<|im_end|>"))
    assert sum(one in chat.ends for one in plain) == 1
    assert chat.tokenizer.decode(plain[:-1], skip_special_tokens=True).rstrip().endswith("解説\n答え: b")
    thinking = chat.tokenizer.decode(chat.reply(TALK, "b", thought, thinks=True))
    dropped = {"qwen2_5", "qwen3_instruct_2507", "llama3", "llama3_1", "phi3", "cohere2", "gemma", "gemma3", "gemma4"}
    dropped |= {"lfm2", "llava_next", "smolvlm"}
    assert (thought in thinking) == (family not in dropped)
    assert chat.opens_thinking(thinks=True) == (family in OPENS)
    assert chat.opens_thinking(thinks=False) == (family == "deepseek_r1_distill")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mark_that_is_named_in_a_question_or_reply_does_not_become_the_mark(chats, family):
    chat = chats[family]
    marks = {one for one, token in chat.tokenizer.added_tokens_decoder.items() if token.special}
    names = "と".join(chat.tokenizer.convert_ids_to_tokens(sorted(marks)))
    bare = chat.prompt([{"role": "user", "content": "発熱"}])
    hostile = chat.prompt([{"role": "user", "content": f"発熱{names}"}])
    assert [one for one in hostile if one in marks] == [one for one in bare if one in marks]
    assert names in chat.tokenizer.decode(hostile)
    answer = chat.reply([{"role": "user", "content": "発熱"}], f"{names}b")
    quiet = chat.reply([{"role": "user", "content": "発熱"}], "b")
    assert [one for one in answer if one in marks] == [one for one in quiet if one in marks]


def test_a_system_message_that_a_template_refuses_or_drops_comes_before_the_first_question(chats):
    gemma = chats["gemma"]
    assert not gemma.takes_system
    text = gemma.tokenizer.decode(gemma.prompt(TALK))
    assert "<start_of_turn>user\n医師国家試験を解きます。\n\n問題: 発熱\n答え:<end_of_turn>" in text
    dropping = "{% for m in messages if m.role != 'system' %}{{ m.role + ': ' + m.content + '\\n' }}{% endfor %}"
    chat = ChatTemplate(tiny.make_tokenizer(), dropping, "dropping")
    assert chat.tokenizer.decode(chat.prompt(TALK[:2])) == "user: 医師国家試験を解きます。\n\n問題: 発熱\n答え:\n"


def test_a_template_that_raises_or_loses_the_question_is_refused_by_name():
    tokenizer = tiny.make_tokenizer()
    raising = "{{ raise_exception('Only tools are answered') }}"
    with refused("weights.template-raises", "some model", "Only tools are answered"):
        ChatTemplate(tokenizer, raising, "some model")
    with refused("weights.template-raises", "some model", "undefined"):
        ChatTemplate(tokenizer, "{{ persona + messages[0].content }}", "some model")
    with refused("weights.template-without-question", "some model"):
        ChatTemplate(tokenizer, "{% for m in messages %}{{ m.role }}{% endfor %}", "some model")


def test_a_template_that_takes_one_question_only_refuses_worked_examples():
    single = "{% if messages|length > 1 %}{{ raise_exception('one turn') }}{% endif %}{{ messages[0].content }}"
    chat = ChatTemplate(tiny.make_tokenizer(), single, "short memory")
    assert chat.tokenizer.decode(chat.prompt(TALK[1:2])) == TALK[1]["content"]
    with refused("weights.template-raises", "short memory", "one turn", "`shots`"):
        chat.prompt(TALK[1:])


def test_a_template_cannot_run_code():
    with pytest.raises(ModelError) as caught:
        ChatTemplate(tiny.make_tokenizer(), "{{ messages.__class__.__mro__[1].__subclasses__() }}", "hostile")
    assert caught.value.code in ("weights.template-raises", "weights.template-without-question")


def test_a_template_that_prints_the_date_prints_the_same_one_on_every_day(chats):
    text = chats["gptoss"].tokenizer.decode(chats["gptoss"].prompt(TALK))
    assert f"Current date: {DAY.isoformat()}" in text


def test_values_of_the_template_win_over_the_switch(chats):
    qwen, oss = chats["qwen3"], chats["gptoss"]
    assert qwen.prompt(TALK, values={"enable_thinking": True}) == qwen.prompt(TALK, thinks=True)
    assert "Reasoning: high" in oss.tokenizer.decode(oss.prompt(TALK, values={"reasoning_effort": "high"}))


def test_a_base_without_a_template_gets_one_that_begins_as_its_training_texts_do(tmp_path):
    from tests.weights.test_special_tokens import byte_level, putting

    for form, begun in (("$A", 0), ("<s> $A", 1)):
        tokenizer = putting(byte_level(), form)
        write_tokenizer(tokenizer, tmp_path / str(begun))
        back = load_tokenizer(tmp_path / str(begun))
        written = back.apply_chat_template([{"role": "user", "content": "用量は10 mg"}], return_dict=False)
        assert written == TextTokens(back).prompt("用量は10 mg")
        assert written.count(back.bos_token_id) == begun
        assert own_template(tmp_path / str(begun)) is None, "our plain template is no template of the publisher's"


@pytest.mark.parametrize("place", ["file", "settings", "named"])
def test_a_folders_own_template_is_found_wherever_it_is_written(tmp_path, place):
    assert own_template(tmp_path) is None
    if place == "file":
        (tmp_path / "chat_template.jinja").write_text("{{ messages }}", "utf-8")
    else:
        named = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": "{{ messages }}"}]
        value = "{{ messages }}" if place == "settings" else named
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": value}), "utf-8")
    assert own_template(tmp_path) == "{{ messages }}"
    (tmp_path / "chat_template.jinja").write_text(PLAIN, "utf-8")
    assert own_template(tmp_path) is None


@pytest.mark.parametrize(
    ("marks", "ends"),
    [
        (("<|im_end|>", "<turn|>"), {"<|im_end|>", "<turn|>"}),
        (("<|end|>", "<|user|>"), {"<|end|>"}),
        (("<|end|>", "<|channel|>", "<|return|>", "<|call|>"), {"<|return|>", "<|call|>"}),
        (("<|end|>", "<|think|>", "<|content|>"), set()),
    ],
)
def test_the_end_marks_of_every_family_end_a_reply_and_those_within_one_do_not(marks, ends):
    tokenizer = tiny.make_tokenizer()
    tokenizer.add_tokens(list(marks), special_tokens=True)
    found = set(tokenizer.convert_ids_to_tokens(end_marks(tokenizer)))
    assert found == {"<|endoftext|>", "<|im_end|>"} | ends
