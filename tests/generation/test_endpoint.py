"""The endpoint maker against a server on a real socket that is busy, faulty, slow, or short of room."""

import json
import socket
import threading
import time

import pytest

from medllm.generation.endpoint import EndpointGenerator
from medllm.generation.reply_log import generate_resumable
from medllm.generation.types import NoReplyError, Request
from tests.generation.serving import JsonHandler, JsonServer, as_events
from tests.refusals import refused

SECRET = "sk-very-secret"


class Handler(JsonHandler):
    def do_POST(self):
        body = self.read()
        with self.server.lock:
            self.server.seen.append((self.path, dict(self.headers), body))
            self.server.times.append(time.monotonic())
            fault = self.server.faults.pop(0) if self.server.faults else None
        if fault == "hang up":
            self.connection.close()
            return
        if fault == "half":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(
                b'{"choices": [{"te' if not body["stream"] else b'data: {"choices": [{"text": "said "}]}\n\n'
            )
            return
        if fault is not None:
            code, headers, text = fault
            self.send(code, text, headers)
            return
        text = f"said {body.get('prompt') or body['messages'][-1]['content']} STOP more"
        if body["stream"]:
            events = [{"choices": [{"text": piece}]} for piece in (text[:5], text[5:9])]
            events.append({"choices": [{"text": "", "finish_reason": self.server.ended}]})
            self.send(200, as_events(events) + "data: [DONE]\n\n")
            return
        choice = {"finish_reason": "stop", "text": text, "message": {"content": text}}
        self.send(200, {"choices": [choice], "usage": {"prompt_tokens": 1000, "completion_tokens": 500}})


class Server(JsonServer):
    """A server that does what its list of replies says, then answers rightly."""

    handler = Handler

    def __init__(self, *faults):
        self.faults, self.seen, self.times = list(faults), [], []
        self.ended = "length"
        super().__init__()


@pytest.fixture
def serve():
    servers = []

    def start(*faults):
        servers.append(Server(*faults))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def one(generator, **changed):
    return next(generator.generate([Request(key="k", model="m", text="Q", **changed)]))


def test_a_busy_server_is_waited_for_as_long_as_it_asks_and_a_broken_line_is_tried_again(serve):
    server = serve((429, {"Retry-After": "1"}, "slow down"), (503, {"Retry-After": "0"}, "busy"), "hang up")
    reply = one(EndpointGenerator(server.url, tries=5))
    assert reply.text == "said Q STOP more"
    assert len(server.seen) == 4
    assert server.times[1] - server.times[0] >= 1.0


def test_a_wrong_question_is_not_repeated_and_the_key_is_in_no_message(serve):
    server = serve((401, {}, "wrong key"), (404, {}, "no such model"))
    generator = EndpointGenerator(server.url, key=SECRET)
    with refused("generation.error-answered", server.url, "401", "`m`", "wrong key", kind=NoReplyError) as caught:
        one(generator)
    assert SECRET not in str(caught.value) and caught.value.__cause__ is None and caught.value.status == 401
    with refused("generation.error-answered", "404", "no such model"):
        one(generator)
    assert len(server.seen) == 2
    assert server.seen[0][1]["Authorization"] == f"Bearer {SECRET}"
    assert SECRET not in json.dumps([server.seen[0][0], server.seen[0][2]])


def test_an_answer_that_breaks_off_is_asked_for_again(serve):
    server = serve("half", "half")
    assert one(EndpointGenerator(server.url, tries=3)).text == "said Q STOP more"
    assert len(server.seen) == 3
    with refused("generation.unreachable"):
        one(EndpointGenerator(serve("half").url, tries=1))


def test_a_stream_that_breaks_off_gives_what_came_and_then_says_so(serve):
    deltas = EndpointGenerator(serve("half").url).stream([Request(key="k", model="m", text="Q")])
    assert next(deltas).text == "said "
    last = next(deltas)
    assert last.reply is None and isinstance(last.error, NoReplyError)
    assert last.error.code == "generation.answer-broken-off"
    assert list(deltas) == []


@pytest.mark.parametrize(("stop", "kept"), [((), "repetition"), (("Q",), "stop")])
def test_a_reply_that_the_server_ends_in_a_loop_is_not_whole_unless_its_stop_string_came_before(serve, stop, kept):
    server = serve()
    server.ended = "repetition"
    asked = Request(key="k", model="m", text="Q", stop=stop)
    *_, last = EndpointGenerator(server.url).stream([asked])
    assert last.reply.finish_reason == kept


def test_requests_are_streamed_side_by_side_and_one_that_is_refused_ends_alone(serve):
    server = serve((404, {}, "no such model"), (400, {}, "This model's maximum context length is 2048 tokens."))
    deltas = list(EndpointGenerator(server.url).stream([Request(key=str(n), model="m", text="Q") for n in range(5)]))
    ends = [delta for delta in deltas if delta.reply is not None or delta.error is not None]
    assert sorted(delta.key for delta in ends) == list("01234")
    (error,) = [delta.error for delta in ends if delta.error is not None]
    assert isinstance(error, NoReplyError) and (error.code, error.status) == ("generation.error-answered", 404)
    reasons = sorted(delta.reply.finish_reason for delta in ends if delta.reply is not None)
    assert reasons == ["length", "length", "length", "too_long"]


@pytest.mark.parametrize("bound", [3, 8])
def test_a_stream_sends_as_many_requests_at_a_time_as_it_may(serve, monkeypatch, bound):
    """All are sent before the first reply ends: each waits until as many as the bound are there."""
    server = serve()
    together = threading.Barrier(bound)
    send = Handler.send

    def wait_for_the_others(handler, *args):
        together.wait(timeout=30)
        send(handler, *args)

    monkeypatch.setattr(Handler, "send", wait_for_the_others)
    asked = [Request(key=str(number), model="m", text="Q") for number in range(2 * bound)]
    replies = [d.reply for d in EndpointGenerator(server.url, num_concurrent=bound).stream(asked) if d.reply]
    assert {reply.key for reply in replies} == {request.key for request in asked}
    assert len(replies) == 2 * bound


def test_a_stream_that_is_closed_sends_nothing_more(serve):
    server = serve()
    deltas = EndpointGenerator(server.url, num_concurrent=1).stream(
        [Request(key=str(number), model="m", text="Q") for number in range(50)]
    )
    next(deltas)
    deltas.close()
    time.sleep(0.5)
    sent = len(server.seen)
    time.sleep(0.5)
    assert len(server.seen) == sent < 50


@pytest.mark.parametrize("text", ["<html>Log in</html>", "[]", "{}", '{"choices": []}', '{"choices": [null]}', "7"])
def test_an_answer_that_is_no_completion_is_reported_in_the_servers_words(serve, text):
    with refused("generation.not-a-completion", "`m`", text):
        one(EndpointGenerator(serve((200, {}, text)).url))


def test_a_server_that_gives_the_key_back_does_not_bring_it_into_a_message(serve):
    server = serve((401, {}, f"Incorrect API key provided: {SECRET}."), (200, {}, f"your key is {SECRET}"))
    for code, text in (
        ("generation.error-answered", "provided: ***."),
        ("generation.not-a-completion", "your key is ***"),
    ):
        with refused(code, text) as caught:
            one(EndpointGenerator(server.url, key=SECRET))
        assert SECRET not in str(caught.value)


def test_a_server_that_points_elsewhere_is_not_followed_and_the_key_stays(serve):
    other = serve()
    server = serve((302, {"Location": other.url + "/completions"}, "moved"))
    with refused("generation.error-answered", "302", "`m`", "moved"):
        one(EndpointGenerator(server.url, key=SECRET))
    assert not other.seen


def test_patience_ends(serve):
    server = serve(*[(500, {"Retry-After": "0"}, "still broken")] * 3)
    with refused("generation.error-answered", "500", "`m`", "still broken"):
        one(EndpointGenerator(server.url, tries=3))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with refused("generation.unreachable", f"http://127.0.0.1:{port}/v1"):
        one(EndpointGenerator(f"http://127.0.0.1:{port}/v1", tries=1))
    with refused("generation.not-an-address", "file:///etc"):
        one(EndpointGenerator("file:///etc"))


def test_a_prompt_that_the_server_finds_too_long_is_reported_and_the_rest_goes_on(serve):
    text = "This model's maximum context length is 2048 tokens."
    server = serve((400, {}, text))
    asked = [Request(key=str(number), model="m", text="Q") for number in range(3)]
    replies = list(EndpointGenerator(server.url, num_concurrent=1).generate(asked))
    assert sorted(reply.finish_reason for reply in replies) == ["stop", "stop", "too_long"]


def test_requests_keep_to_the_pace(serve):
    server = serve()
    asked = [Request(key=str(number), model="m", text="Q") for number in range(4)]
    list(EndpointGenerator(server.url, per_minute=240).generate(asked))
    assert max(server.times) - min(server.times) >= 3 * 60 / 240 - 0.05


def test_costs_are_counted_and_text_ends_before_the_stop(serve):
    server = serve()
    generator = EndpointGenerator(server.url, prices={"m": (2.0, 8.0)})
    reply = one(generator, stop=("STOP",))
    assert reply.text == "said Q " and reply.finish_reason == "stop"
    assert reply.cost == pytest.approx((1000 * 2 + 500 * 8) / 1e6)
    assert server.seen[0][2]["stop"] == ["STOP"]


def test_a_base_model_is_prompted_as_text_and_a_chat_model_by_messages(serve):
    server = serve()
    one(EndpointGenerator(server.url), temperature=0.7, seed=5, top_p=0.9)
    messages = ({"role": "system", "content": "S"}, {"role": "user", "content": "U"})
    assert one(EndpointGenerator(server.url, chat=True), messages=messages).text.startswith("said U")
    (path, _, text), (chat_path, _, chat) = server.seen
    assert path == "/v1/completions" and text["prompt"] == "Q" and "messages" not in text
    assert (text["seed"], text["temperature"], text["top_p"]) == (5, 0.7, 0.9)
    assert chat_path == "/v1/chat/completions" and chat["messages"] == list(messages) and "seed" not in chat


def test_a_stream_comes_in_pieces_and_ends_with_the_reply(serve):
    deltas = list(EndpointGenerator(serve().url).stream([Request(key="k", model="m", text="Q")]))
    assert [delta.text for delta in deltas] == ["said ", "Q ST", ""]
    assert deltas[-1].reply is not None
    assert (deltas[-1].reply.text, deltas[-1].reply.finish_reason) == ("said Q ST", "length")


def test_what_was_answered_before_a_crash_is_not_asked_or_paid_again(serve, tmp_path):
    server = serve()
    generator = EndpointGenerator(server.url, num_concurrent=1)
    asked = [Request(key=str(number), model="m", text=f"Q{number}") for number in range(5)]
    first = generate_resumable(generator, asked, tmp_path / "replies.jsonl")
    got = [next(first), next(first)]
    first.close()
    known = len((tmp_path / "replies.jsonl").read_text("utf-8").splitlines())
    assert known >= len(got)
    server.seen.clear()
    replies = list(generate_resumable(generator, asked, tmp_path / "replies.jsonl"))
    assert len(server.seen) == 5 - known
    assert sorted(reply.key for reply in replies) == list("01234")


OPENAI_REFUSES = [
    (
        400,
        {},
        '{"error": {"message": "Unsupported parameter: \'max_tokens\' is not supported with this model. '
        "Use 'max_completion_tokens' instead.\"}}",
    ),
    (400, {}, '{"error": {"message": "Unsupported value: \'temperature\' does not support 0.0 with this model."}}'),
    (400, {}, '{"error": {"message": "Unsupported parameter: \'stop\' is not supported with this model."}}'),
]


def test_keys_that_a_server_refuses_are_renamed_or_left_out_once_for_all_requests_and_reported(serve, capsys):
    server = serve(*OPENAI_REFUSES)
    maker = EndpointGenerator(server.url, chat=True, num_concurrent=1)
    asked = [Request(key=str(n), model="gpt", text="q", max_new_tokens=7, stop=(" STOP",)) for n in range(2)]
    replies = list(maker.generate(asked))
    assert [reply.text for reply in replies] == ["said q", "said q"], "the reply is cut at the stop string here"
    assert len(server.seen) == 5
    for _, _, body in server.seen[3:]:
        assert body["max_completion_tokens"] == 7
        assert not {"max_tokens", "temperature", "stop"} & body.keys()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("`")[1] for line in lines] == ["max_tokens", "temperature", "stop"]


def test_a_refusal_that_names_no_key_of_the_request_ends_with_the_words_of_the_server(serve):
    server = serve((400, {}, "unknown model `gpt`"))
    with refused("generation.error-answered", "400", "unknown model `gpt`"):
        list(EndpointGenerator(server.url, chat=True).generate([Request(key="1", model="gpt", text="q")]))
    assert len(server.seen) == 1
