"""The door of a real page on loopback: what is closed, what is bounded, and wrong values that are told, not crashes."""

import json
import re
import socket
import time
from collections.abc import Iterator

import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from medllm.page.request_filter import LARGEST_BODY
from medllm.page.serve import PageSettings, free_port, serve
from tests.page.conftest import in_a_loop

CLOSED = [
    ("POST", "upload"), ("GET", "upload_progress?upload_id=a"), ("GET", "file=/etc/passwd"), ("GET", "file/etc/passwd"),
    ("GET", "proxy=https://a.hf.space/"), ("POST", "stream/a"), ("GET", "stream/a/b/1/playlist.m3u8"),
    ("POST", "component_server"), ("POST", "process_recording"), ("GET", "deep_link?session_hash=a"),
    ("GET", "monitoring/summary"), ("POST", "vibe-edit"), ("GET", "token"), ("GET", "dev/reload"),
    ("POST", "run-history/connect"), ("GET", "openapi.json"), ("GET", "custom_component/a/client/component/x.js"),
]  # fmt: skip


@pytest.fixture(scope="module")
def site(evaluation, tmp_path_factory) -> Iterator[str]:
    """A page with votes, on a free port."""
    votes = tmp_path_factory.mktemp("votes")
    settings = PageSettings(results=str(evaluation), port=free_port(), votes=votes)
    address, close = in_a_loop(lambda: serve(settings, block=False))
    yield address
    close()


@pytest.fixture
def ask(site) -> Iterator[httpx.Client]:
    """A program at that page."""
    with httpx.Client(base_url=site, timeout=20) as client:
        yield client


@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_what_the_page_does_not_use_is_closed(ask, method, path):
    assert ask.request(method, f"gradio_api/{path}").status_code == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(ask, method):
    assert ask.request(method, "config").status_code == 405


def test_a_file_is_not_taken(ask):
    assert ask.post("gradio_api/upload", files={"files": ("a.txt", b"x")}).status_code == 404
    assert ask.post("upload", files={"files": ("a.txt", b"x")}).status_code == 404


def test_a_foreign_name_for_this_machine_is_refused_everywhere(ask):
    for path in ("", "config", "gradio_api/info", "medllm/prompt?q=115A1"):
        assert ask.get(path, headers={"host": "evil.example"}).status_code == 403


def test_another_site_sends_no_event_and_no_vote(ask):
    away = {"origin": "https://evil.example"}
    assert ask.post("gradio_api/run/question", json={"data": ["115A1"]}, headers=away).status_code == 403
    assert ask.post("medllm/vote", json={}, headers=away).status_code == 403


def test_a_websocket_is_refused(site):
    host, port = site.removeprefix("http://").rstrip("/").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as line:
        line.sendall(
            f"GET /gradio_api/queue/join HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        assert line.recv(64).split()[1] in (b"403", b"404", b"405")


def test_a_large_body_is_refused_whether_its_length_is_declared_or_not(ask):
    large = b'{"data": ["' + b"x" * LARGEST_BODY + b'"]}'
    assert ask.post("gradio_api/run/question", content=large).status_code == 413
    pieces = (large[at : at + 10_000] for at in range(0, len(large), 10_000))
    assert ask.post("gradio_api/run/question", content=pieces).status_code == 413


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b"{", b'{"data": [NaN]}', b'{"data": [Infinity]}', b'{"data": "x"}', b'{"data": []}',
        b'{"data": ["a", "b"]}',
        b'{"data": ' + b"[" * 90_000 + b"]" * 90_000 + b"}", b'{"data": ' + b"[" * 30 + b"]" * 30 + b"}",
        b'{"data": ["x"], "session_hash": ["a"]}', b'{"data": ["x"], "session_hash": "' + b"s" * 65 + b'"}',
        b'{"data": ["x"], "fn_index": 9999}', b'{"data": ["x"], "fn_index": true}',
        b'{"data": ["' + b"x" * 5000 + b'"]}', b"\xff\xfe",
    ],
)  # fmt: skip
def test_a_body_that_is_no_event_is_refused_as_such(ask, body):
    answer = ask.post("gradio_api/run/question", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["detail"]


@pytest.mark.parametrize("value", [1, 1.5, True, None, ["a"], {"a": 1}, "x" * 300])
def test_a_wrong_value_is_named_and_leaves_no_traceback(ask, capfd, value):
    asked = {"question": [], "comparison": [], "scores": ["", "", ""], "flips": ["", "", ""]}
    for name, rest in asked.items():
        data = ["final", value, *rest[1:]] if name == "flips" else [value, *rest]
        answer = ask.post(f"gradio_api/run/{name}", json={"data": data})
        assert answer.json()["error"].startswith(("q: ", "exam: ", "outcome: "))
    assert "Traceback" not in capfd.readouterr().err


def test_a_value_out_of_range_names_what_there_is(site):
    client = Client(site, verbose=False)
    with pytest.raises(AppError, match=r"nobody.*base, cpt, final"):
        client.predict("nobody", api_name="/flips")
    with pytest.raises(AppError, match="lost, lost_wrong, lost_prohibited, lost_unread, lost_cut, gained"):
        client.predict("final", "bad", api_name="/flips")
    with pytest.raises(AppError, match="2021"):
        client.predict(year="1999", api_name="/scores")
    assert client.predict("final", "kept", api_name="/flips")


def test_every_event_of_the_page_answers_wrong_values_without_a_traceback(ask, capfd):
    events = [one for one in ask.get("config").json()["dependencies"] if one["backend_fn"]]
    assert len(events) > 20
    for event in events:
        for value in ("\0nope", ["a"], {"path": "/etc/passwd"}, 7):
            body = {"data": [value] * len(event["inputs"]), "fn_index": event["id"], "session_hash": "s"}
            answer = ask.post("gradio_api/run/predict", json=body)
            assert answer.status_code in (200, 400, 500), event
            assert answer.json() != {"error": None}, event
    assert "Traceback" not in capfd.readouterr().err


def test_an_unknown_result_is_reported_in_the_words_of_its_stream(ask, capfd):
    assert "fetched already" in ask.get("gradio_api/call/question/nothing").text
    message = json.loads(ask.get("gradio_api/queue/data?session_hash=nobody").text.removeprefix("data: "))
    assert message["session_not_found"] is True
    assert "Traceback" not in capfd.readouterr().err


def test_an_event_of_nobody_may_be_cancelled(ask):
    body = {"session_hash": "nobody", "fn_index": 1, "event_id": "nothing"}
    assert ask.post("gradio_api/cancel", json=body).json() == {"success": True}


def test_a_body_that_does_not_arrive_is_not_waited_for(site, monkeypatch):
    monkeypatch.setattr("medllm.page.request_filter.SLOWEST_BODY", 0.3)
    host, port = site.removeprefix("http://").rstrip("/").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as line:
        began = time.monotonic()
        line.sendall(f"POST /gradio_api/run/question HTTP/1.1\r\nHost: {host}\r\nContent-Length: 50\r\n\r\n{{".encode())
        assert b"408" in line.recv(64)
        assert time.monotonic() - began < 5


@pytest.mark.parametrize("before", ["", "GET /robots.txt HTTP/1.1\r\nHost: localhost\r\n\r\n"])
def test_headers_that_never_end_are_not_waited_for_and_a_stream_that_is_read_stays_open(ask, site, monkeypatch, before):
    monkeypatch.setattr("medllm.page.middleware.HEADERS", 1.5)
    host, port = site.removeprefix("http://").rstrip("/").split(":")
    with (
        ask.stream("GET", "gradio_api/heartbeat/reader", timeout=httpx.Timeout(20, read=4)) as stream,
        socket.create_connection((host, int(port)), timeout=10) as line,
    ):
        beats = stream.iter_text()
        assert "ALIVE" in next(beats)
        line.sendall(f"{before}GET /config HTTP/1.1\r\nHost: localhost\r\nX-Slow: ".encode())
        with pytest.raises((ConnectionError, AssertionError)):  # both a reset and an end of the line
            while True:
                assert line.recv(4096)
        with pytest.raises(httpx.ReadTimeout):  # a closed one would end at once
            next(beats)


def test_too_many_readers_are_asked_to_come_back(ask, monkeypatch):
    monkeypatch.setattr("medllm.page.request_filter.MOST_OPEN", 0)
    assert ask.get("config").status_code == 503


def test_what_programs_are_shown_in_the_documents_works(site):
    message = Client(site, verbose=False).predict(api_name="/scores")
    assert [line["model"] for line in message] == ["base", "cpt", "final"]


@pytest.mark.parametrize("body", [b"null", b"[" * 20_000, b"\xff", b"{", b'{"seconds": NaN}', b'{"note": "\\ud800"}'])
def test_a_vote_that_is_no_vote_is_refused_and_leaves_no_traceback(ask, capfd, body):
    answer = ask.post("medllm/vote", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    "changed",
    [{"at": True}, {"at": "0"}, {"at": 10**30}, {"choice": ["a"]}, {"shown": None}, {"rater": ["x"]}, {"rater": ""}],
)  # fmt: skip
def test_a_vote_with_a_wrong_value_is_refused_and_one_with_odd_remarks_is_kept_without_them(ask, capfd, changed):
    form = ask.get("medllm/pair?rater=z&at=0").text
    vote = {"rater": "z", "at": 0, "shown": re.search(r'data-shown="(\w+)"', form)[1], "choice": "a"}
    assert ask.post("medllm/vote", json=vote | changed).status_code == 409
    odd = {"reasons_a": [[1], {}], "faulty_a": [10**30, "x"], "note": {"a": 1}, "role": [1], "seconds": 10**30}
    assert ask.post("medllm/vote", json=vote | odd).status_code == 200
    assert "Traceback" not in capfd.readouterr().err


def test_a_list_has_two_forms_and_no_other(ask):
    assert [ask.get(f"medllm/list.{form}").status_code for form in ("csv", "jsonl", "exe")] == [200, 200, 404]
