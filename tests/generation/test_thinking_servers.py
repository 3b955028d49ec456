"""Servers whose models think: what they keep apart, leave in the text or cut, and switches that they do not know."""

import pytest

from medllm.exam.prompts import render
from medllm.generation.endpoint import EndpointGenerator
from medllm.generation.types import Request
from tests.exam.making import question
from tests.generation.serving import ChatServer

PROMPTS = {style: render(question("b"), prompt=style) for style in ("plain", "think")}


@pytest.fixture
def serve():
    servers = []

    def start(*messages, refuses=None):
        servers.append(ChatServer(*messages, refuses=refuses or {}))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def one(server, style="think", **changed):
    request = Request(**PROMPTS[style].request_fields, **{"key": "k", "model": "m", "max_new_tokens": 64, **changed})
    return next(EndpointGenerator(server.url, chat=True, tries=3).generate([request]))


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_thinking_that_a_server_keeps_apart_is_kept_apart_with_its_tokens(serve, name):
    usage = {"prompt_tokens": 9, "completion_tokens": 40, "completion_tokens_details": {"reasoning_tokens": 33}}
    reply = one(serve({"content": "b", name: "a か。いや、b だ。", "usage": usage}))
    assert (reply.text, reply.reasoning) == ("b", "a か。いや、b だ。")
    assert (reply.completion_tokens, reply.reasoning_tokens) == (40, 33)


def test_thinking_that_a_server_leaves_in_the_text_is_taken_out(serve):
    reply = one(serve({"content": "<think>\na か。\n</think>\n\nb"}))
    assert (reply.text, reply.reasoning) == ("b", "a か。")
    opened = one(serve({"content": "a か。\n</think>\n\nb"}))
    assert (opened.text, opened.reasoning) == ("b", "a か。"), "the template of the server wrote the beginning"


def test_no_content_is_no_reply_and_cut_thinking_without_marks_is_no_answer(serve):
    null = one(serve({"content": None, "reasoning_content": "答え: a か", "finish_reason": "length"}))
    assert (null.text, null.reasoning, null.finish_reason) == ("", "答え: a か", "length")
    bare = one(serve({"content": "答え: a か", "finish_reason": "length"}))
    assert (bare.text, bare.reasoning) == ("", "答え: a か"), "a model that was to think and was cut has not answered"
    plain = one(serve({"content": "答え: a", "finish_reason": "length"}), style="plain")
    assert (plain.text, plain.reasoning) == ("答え: a", "")


def test_a_model_that_is_to_think_gets_no_stop_string_and_is_cut_at_one_afterwards(serve):
    server = serve({"content": "b\n問題: 次は", "reasoning": "問題を読む。\n問題: これ"})
    reply = one(server)
    assert "stop" not in server.seen[0] and (reply.text, reply.finish_reason) == ("b", "stop")
    one(server, style="plain")
    assert server.seen[1]["stop"] == ["\n問題:", "\n問題："]


def test_a_model_that_thinks_unasked_and_meets_a_stop_string_is_asked_again_without(serve, capsys):
    server = serve(
        {"content": "", "reasoning_content": "読むと"}, {"content": "b", "reasoning_content": "読むと\n問題: x"}
    )
    generator = EndpointGenerator(server.url, chat=True)
    request = Request(**PROMPTS["plain"].request_fields, key="k", model="m", max_new_tokens=64)
    (reply,) = generator.generate([request])
    assert (reply.text, reply.reasoning) == ("b", "読むと\n問題: x")
    assert ["stop" in body for body in server.seen] == [True, False]
    assert "stop string" in capsys.readouterr().err


def test_the_switch_of_the_thinking_is_sent_and_left_out_where_a_server_does_not_know_it(serve, capsys):
    server = serve(
        {"content": "b"}, {"content": "b"}, refuses={"chat_template_kwargs": "Unrecognized request argument"}
    )
    values = {"enable_thinking": True}
    assert one(server, chat_template_kwargs=values).text == "b"
    assert server.refused == [{"chat_template_kwargs": values}]
    assert "chat_template_kwargs" not in server.seen[-1] and "chat_template_kwargs" in capsys.readouterr().err


def test_options_of_a_server_may_differ_by_prompt(serve):
    server = serve({"content": "b"}, {"content": "b"})
    options = {"think": {"reasoning_effort": "high"}, "plain": {"reasoning_effort": "none"}}
    generator = EndpointGenerator(server.url, chat=True, options=options, num_concurrent=1)
    asked = [Request(**PROMPTS[style].request_fields, key=style, model="m", max_new_tokens=9) for style in PROMPTS]
    list(generator.generate(asked))
    assert [body["reasoning_effort"] for body in server.seen] == ["none", "high"]


def test_a_server_without_a_template_completes_text_where_that_is_allowed(serve, capsys):
    fault = "As of transformers v4.44, default chat template is no longer allowed, so you must provide a chat template"
    server = serve({"content": "b"}, refuses={"messages": fault})
    generator = EndpointGenerator(server.url, chat=True, or_text=True)
    request = Request(**PROMPTS["plain"].request_fields, key="k", model="m", max_new_tokens=9)
    (reply,) = generator.generate([request])
    assert reply.text == "b" and server.seen[-1]["prompt"] == PROMPTS["plain"].text
    assert "no chat template" in capsys.readouterr().err


def test_a_stream_gives_thinking_and_reply_apart(serve):
    server = serve({"content": "答え: b", "reasoning_content": "a か。"})
    request = Request(**PROMPTS["think"].request_fields, key="k", model="m", max_new_tokens=9)
    deltas = list(EndpointGenerator(server.url, chat=True).stream([request]))
    assert "".join(delta.reasoning for delta in deltas) == "a か。" == deltas[-1].reply.reasoning
    assert "".join(delta.text for delta in deltas) == "答え: b" == deltas[-1].reply.text
