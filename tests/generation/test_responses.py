"""Models that a server has at `/responses` only: found by its 404, asked in that form, read as any chat."""

import json

import pytest

from medllm.exam.prompts import render
from medllm.generation.endpoint import EndpointGenerator
from medllm.generation.types import NoReplyError, Request
from medllm.recipe.settings import Evaluate
from medllm.stages import evaluate
from tests import tiny
from tests.exam.making import question
from tests.generation.serving import ChatServer
from tests.refusals import refused

PROMPTS = {style: render(question("b"), prompt=style, system="S") for style in ("plain", "think")}
ABSENT = {"/chat/completions": "This model is only supported in v1/responses and not in v1/chat/completions."}
NOT_TAKEN = "Unsupported parameter"
USAGE = {"input_tokens": 90, "output_tokens": 40, "output_tokens_details": {"reasoning_tokens": 33}}


@pytest.fixture
def serve():
    servers = []

    def start(*messages, **faults):
        servers.append(ChatServer(*messages, **faults))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def asked(style="think", key="k", **changed):
    return Request(**PROMPTS[style].request_fields, **{"key": key, "model": "m", "max_new_tokens": 64, **changed})


def one(server, *, style="think", **how):
    return next(EndpointGenerator(server.url, **{"chat": True, "responses": True, **how}).generate([asked(style)]))


def test_a_model_without_chat_completions_is_asked_by_responses_from_then_on_and_this_is_recorded(serve, capsys):
    server = serve({"content": "b"}, absent=ABSENT)
    generator = EndpointGenerator(server.url, chat=True, num_concurrent=1)
    replies = list(generator.generate([asked(key=str(number)) for number in range(3)]))
    assert [reply.text for reply in replies] == ["b"] * 3
    assert (server.refused, len(server.seen)) == (["/v1/chat/completions"], 3)
    assert generator.changes("m") == ("by /responses",) and generator.changes("other") == ()
    assert capsys.readouterr().err.count("/responses") == 1


def test_requests_that_are_on_their_way_when_the_first_is_refused_change_too(serve):
    server = serve({"content": "b"}, absent=ABSENT)
    generator = EndpointGenerator(server.url, chat=True, num_concurrent=8)
    replies = list(generator.generate([asked(key=str(number)) for number in range(16)]))
    assert [reply.text for reply in replies] == ["b"] * 16


def test_the_request_has_the_keys_of_the_responses_api(serve):
    server = serve({"content": "b"})
    options = {"reasoning_effort": "low", "include": ["reasoning.encrypted_content"]}
    generator = EndpointGenerator(server.url, chat=True, responses=True, options=options)
    list(generator.generate([asked("plain", temperature=0.7, top_p=0.9, seed=5)]))
    (body,) = server.seen
    conversation = body.pop("input")
    assert conversation == list(PROMPTS["plain"].messages) and conversation[0] == {"role": "system", "content": "S"}
    assert body == {"model": "m", "max_output_tokens": 64, "temperature": 0.7, "top_p": 0.9, "stream": False,
                    "store": False, "reasoning": {"effort": "low"},
                    "include": ["reasoning.encrypted_content"]}  # fmt: skip


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_thinking_in_an_item_of_its_own_is_kept_apart_with_its_tokens_and_its_price(serve, name):
    reply = one(serve({"content": "b", name: "a か。いや、b だ。", "usage": USAGE}), prices={"m": (2.0, 8.0)})
    assert (reply.text, reply.reasoning, reply.finish_reason) == ("b", "a か。いや、b だ。", "stop")
    assert (reply.prompt_tokens, reply.completion_tokens, reply.reasoning_tokens) == (90, 40, 33)
    assert reply.cost == pytest.approx((90 * 2 + 40 * 8) / 1e6)


def test_a_reply_whose_thinking_used_the_budget_is_cut_and_no_answer(serve):
    cut = {"content": None, "finish_reason": "max_output_tokens", "usage": USAGE}
    hidden = one(serve(cut))
    assert (hidden.text, hidden.reasoning, hidden.finish_reason, hidden.reasoning_tokens) == ("", "", "length", 33)
    shown = one(serve({**cut, "reasoning": "答え: a か"}))
    assert (shown.text, shown.reasoning, shown.finish_reason) == ("", "答え: a か", "length")


def test_a_visible_reply_that_is_cut_after_hidden_thinking_stays_a_reply(serve):
    cut = {"content": "答えは a か", "finish_reason": "max_output_tokens", "usage": USAGE}
    for reply in (one(serve(cut)), list(streamed(serve(cut)))[-1].reply):
        assert (reply.text, reply.reasoning, reply.finish_reason) == ("答えは a か", "", "length")


def test_a_refusal_is_refused_and_a_filter_too(serve):
    for given in ({"content": None, "refusal": "No."}, {"content": "b", "finish_reason": "content_filter"}):
        assert one(serve(given)).finish_reason == "refused"
        assert list(streamed(serve(given)))[-1].reply.finish_reason == "refused"


def test_a_reply_ends_before_its_stop_string_though_none_is_sent(serve):
    server = serve({"content": "b\n問題: 次は", "reasoning": "問題を読む。\n問題: これ"})
    reply = one(server, style="plain")
    assert (reply.text, reply.reasoning) == ("b", "問題を読む。\n問題: これ")
    assert len(server.seen) == 1 and "stop" not in server.seen[0]


def test_keys_that_the_server_refuses_are_left_out(serve):
    server = serve({"content": "b"}, absent=ABSENT, refuses={"temperature": NOT_TAKEN})
    generator = EndpointGenerator(server.url, chat=True, tries=1)
    (reply,) = generator.generate([asked()])
    assert reply.text == "b" and "temperature" not in server.seen[0]
    assert generator.changes("m") == ("no temperature", "by /responses")


def streamed(server):
    return EndpointGenerator(server.url, chat=True, responses=True).stream([asked()])


def test_a_stream_gives_thinking_and_reply_apart_with_the_tokens_of_its_end(serve):
    deltas = list(streamed(serve({"content": "答え: b", "reasoning_content": "a か。", "usage": USAGE})))
    reply = deltas[-1].reply
    assert "".join(delta.reasoning for delta in deltas) == "a か。" == reply.reasoning
    assert "".join(delta.text for delta in deltas) == "答え: b" == reply.text
    assert (reply.finish_reason, reply.completion_tokens, reply.reasoning_tokens) == ("stop", 40, 33)


def test_a_stream_is_found_at_responses_too(serve):
    server = serve({"content": "答え: b"}, absent=ABSENT)
    deltas = list(EndpointGenerator(server.url, chat=True).stream([asked()]))
    assert deltas[-1].reply.text == "答え: b"


def test_a_response_that_failed_is_no_reply_and_names_the_fault(serve):
    failed = {"content": "b", "status": "failed", "error": {"code": "server_error", "message": "key sk-1"}}
    with refused("generation.not-a-completion", "`m`", kind=NoReplyError):
        one(serve(failed))
    last = list(streamed(serve(failed)))[-1]
    assert last.error.code == "generation.answer-broken-off"
    assert "server_error" in str(last.error) and "sk-1" not in str(last.error)


def test_a_model_that_is_at_neither_address_is_refused_in_the_words_of_the_first(serve):
    both = {"/chat/completions": "The model `m` does not exist.", "/responses": "Not Found"}
    server = serve({"content": "b"}, absent=both)
    with refused("generation.error-answered", "404", "The model `m` does not exist.", kind=NoReplyError):
        next(EndpointGenerator(server.url, chat=True).generate([asked()]))
    assert server.refused == ["/v1/chat/completions", "/v1/responses"]


def test_an_evaluation_writes_down_how_its_requests_were_changed_also_after_an_interruption(serve, tmp_path):
    import pyarrow.parquet as pq

    server = serve({"content": "答え: b", "usage": USAGE}, absent=ABSENT, refuses={"temperature": NOT_TAKEN})
    plain = serve({"content": "答え: b"})
    exam = tiny.make_exam(tmp_path / "naika", 2, first="2019-02-09")
    models = {"a": {"api": server.url, "model": "pro"}, "b": {"api": plain.url, "model": "m"}}
    settings = Evaluate(models=models, benchmarks=("naika",), shots=0, prompts=("plain",))
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr(evaluate, "_judge", interrupted)
        evaluate.make(settings, {"naika": exam}, out)
    assert not out.exists()
    evaluate.make(settings, {"naika": exam}, out)
    runs = {row["model"]: row for row in pq.read_table(out / "runs" / "runs.parquet").to_pylist()}
    assert runs["a"]["request_changes"] == "by /responses, no temperature" and runs["b"]["request_changes"] is None
    assert runs["a"]["reasoning_tokens"] == 66
    assert json.loads(runs["a"]["request"]) == {}


def interrupted(*_):
    raise KeyboardInterrupt
