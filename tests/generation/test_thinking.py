"""Models asked by chat: their own templates, thinking kept apart from the reply, cut thinking, stops within it."""

from dataclasses import replace

import pytest

from medllm.exam.grading import grade
from medllm.exam.prompts import render
from medllm.generation.engine.batching import PromptReader
from medllm.generation.engine.decoding import Decoder
from medllm.generation.engine.local import LocalGenerator
from medllm.generation.engine.transformers import TransformersGenerator
from medllm.generation.factory import make_generators
from medllm.generation.identity import answerers, asked_as, refuse_thinking_without_chat
from medllm.generation.types import Request
from medllm.weights.load import load_tokenizer
from tests import tiny
from tests.exam.making import question
from tests.refusals import refused

QWEN3 = tiny.published_template("qwen3")
ASKED = question("b", language="ja")
EXAMPLE = question("a", question_id="old", text="昔の問題", explanation="解説。", language="ja")


@pytest.fixture(scope="module")
def scripted(tmp_path_factory):
    return tiny.make_scripted(tmp_path_factory.mktemp("scripted") / "base")


@pytest.fixture(scope="module", params=[LocalGenerator, TransformersGenerator])
def generator(scripted, request):
    return request.param(scripted, dtype="float32", templates={"base": QWEN3})


def asked(style, **changed):
    prompt = render(ASKED, prompt=style, exemplars=[EXAMPLE])
    return Request(**prompt.request_fields, **{"key": style, "max_new_tokens": 30, "shared": 20, **changed})


def test_thinking_is_kept_and_counted_apart_from_the_reply_and_off_for_the_other_prompts(generator):
    replies = {reply.key: reply for reply in generator.generate([asked("plain"), asked("explain"), asked("think")])}
    thought = replies["think"]
    assert (thought.text, thought.reasoning, thought.finish_reason) == ("b", "患者答えa", "stop")
    assert (thought.completion_tokens, thought.reasoning_tokens) == (7, 5), "marks count as thinking"
    for prompt in ("plain", "explain"):
        assert (replies[prompt].text, replies[prompt].reasoning, replies[prompt].reasoning_tokens) == ("b", "", 0)


@pytest.mark.parametrize("room", [1, 2, 4, 5])
def test_thinking_that_is_cut_has_no_reply_and_is_graded_as_cut_thinking(generator, room):
    (reply,) = generator.generate([asked("think", max_new_tokens=room)])
    assert (reply.text, reply.finish_reason) == ("", "length")
    assert reply.reasoning_tokens == (room if reply.reasoning else 0)
    record = grade(ASKED, reply.text, model="m", prompt="think", finish_reason="length", reasoning=reply.reasoning)
    status = "thinking" if reply.reasoning else "truncated"
    assert (record.status, record.answer, record.correct, record.truncated) == (status, None, False, True)
    assert record.reasoning == (reply.reasoning or None)


def test_a_stop_string_that_the_thinking_contains_does_not_end_it(generator):
    (reply,) = generator.generate([asked("think")])
    (stopped,) = generator.generate([replace(asked("think"), stop=("答え", "患"))])
    assert (stopped.text, stopped.reasoning, stopped.finish_reason) == (reply.text, reply.reasoning, "stop")


def test_a_stream_hands_out_the_thinking_and_the_reply_as_two_texts(generator):
    deltas = list(generator.stream([asked("think")]))
    whole = deltas[-1].reply
    assert "".join(delta.reasoning for delta in deltas) == whole.reasoning == "患者答えa"
    assert "".join(delta.text for delta in deltas) == whole.text == "b"


def test_a_reply_that_ends_within_its_thinking_is_no_answer_though_it_ended_by_itself(scripted):
    reader = PromptReader(load_tokenizer(scripted), {"base": QWEN3})
    ids = reader.tokenizer.convert_tokens_to_ids
    writing = Decoder.begin(reader, asked("think"), 0, frozenset())
    for token in ids(["<think>", "答え", "a", "<|im_end|>"]):
        writing.take(token)
    reply = writing.reply()
    assert (reply.text, reply.reasoning, reply.finish_reason) == ("", "答えa", "stop")
    record = grade(ASKED, reply.text, model="m", prompt="think", finish_reason="stop", reasoning=reply.reasoning)
    assert (record.status, record.truncated) == ("thinking", True)


def test_a_stop_string_after_the_thinking_ends_the_reply(scripted):
    reader = PromptReader(load_tokenizer(scripted), {"base": QWEN3})
    ids = reader.tokenizer.convert_tokens_to_ids
    writing = Decoder.begin(reader, asked("think", max_new_tokens=99), 0, frozenset())
    assert writing.request.stop == ("\n問題:", "\n問題：")
    for token in [*ids(["<think>", "a", "</think>", "\n\n", "b", "\n"]), *reader.words.plain("問題:c")]:
        if writing.finished is None:
            writing.take(token)
    assert (writing.reply().text, writing.reply().reasoning, writing.finished) == ("b", "a", "stop")


def test_each_model_is_asked_by_its_own_template_an_adapter_by_its_base_s_where_it_has_none(tmp_path, scripted):
    adapters = {name: tiny.make_adapter(tmp_path / name, scripted) for name in ("own", "bare")}
    other = "{% for m in messages %}<|im_start|>{{ m.content }}{% endfor %}<|im_start|>"
    (adapters["own"] / "chat_template.jinja").write_text(other, "utf-8")
    sources = {"base": scripted, **adapters}
    models = {name: name for name in sources}
    forms = asked_as(models, sources, engine="local", form="chat")
    assert forms["own"].template == other and forms["bare"].template == forms["base"].template == QWEN3
    makers = make_generators(models, sources, form="chat", dtype="float32")
    requests = [asked("plain", key=name, model=makers[name][1]) for name in models]
    maker = makers["base"][0]
    assert {id(one) for one, _ in makers.values()} == {id(maker)}, "they share one copy of the base"
    replies = {reply.key: reply for reply in maker.generate(requests)}
    reader = maker._maker().reader
    own, bare = (reader.tokens(one) for one in requests[1:])
    assert own != bare == reader.tokens(requests[0])
    assert replies["own"].prompt_tokens == len(own) and replies["bare"].prompt_tokens == len(bare)
    found = answerers(models, sources, form="chat", engine="local", dtype="float32", quantization="none")
    assert len({str(one.identity) for one in found.values()}) == 3


def test_a_model_without_a_template_is_refused_for_chat_and_completes_text_with_auto(tmp_path):
    base = tiny.make_base(tmp_path / "base")
    sources, models = {"base": base}, {"base": "base"}
    with refused("generation.no-chat-template", "base", base, "`format: completion`"):
        asked_as(models, sources, engine="local", form="chat")
    forms = asked_as(models, sources, engine="local", form="auto")
    assert not forms["base"].chat
    with refused("generation.think-needs-chat", "base", "`think`"):
        refuse_thinking_without_chat(forms, ("plain", "think"))
    refuse_thinking_without_chat(forms, ("plain", "explain"))


def test_replies_by_completion_keep_the_keys_that_they_had_before_there_was_a_chat(tmp_path):
    base = tiny.make_base(tmp_path / "base")
    how = {"engine": "local", "dtype": "float32", "quantization": "none"}
    (plain,) = answerers({"m": "base"}, {"base": base}, **how).values()
    assert set(plain.identity) == {"engine", "dtype", "quantization", "files"}
