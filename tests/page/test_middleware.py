"""Around Gradio: language, policy and names of the document; what nobody holds is let go in time or at a bound."""

import asyncio

import gradio as gr
import httpx
import pytest
from gradio.state_holder import StateHolder
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import Route

from medllm.page import middleware
from medllm.page.middleware import POLICY, Frame, PendingRequests, hosts_of
from tests.page.conftest import in_a_loop

DOCUMENT = f'<!doctype html><html style="" lang="en"><head><title>x</title></head><body>{"語" * 5000}</body></html>'


def asked(path: str, **headers: str) -> httpx.Response:
    async def ask():
        routes = [Route("/", lambda _: HTMLResponse(DOCUMENT)), Route("/other", lambda _: PlainTextResponse("same"))]
        quick = lambda request: PlainTextResponse("答" * int(request.query_params["size"]))  # noqa: E731
        routes.append(Route("/gradio_api/run/predict", quick))
        app = Starlette(routes=routes, middleware=[Middleware(Frame)])
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://page") as client:
            return await client.get(path, headers=headers)

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("coding", "packed"), [("gzip, deflate, br, zstd", "br"), ("gzip;q=1", "gzip"), ("identity", None)]
)
def test_the_document_gets_language_policy_and_first_screen_packed_or_not(coding, packed):
    answer = asked("/", **{"accept-encoding": coding})
    assert 'lang="ja"' in answer.text
    assert 'id="medllm-first"' in answer.text
    assert "語" * 5000 in answer.text
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers.get("content-encoding") == packed


@pytest.mark.parametrize(("size", "packed"), [(40_000, "br"), (200, None)])
def test_the_answer_to_a_quick_event_is_packed_where_it_is_worth_it(size, packed):
    answer = asked(f"/gradio_api/run/predict?size={size}", **{"accept-encoding": "gzip, br"})
    assert answer.text == "答" * size
    assert answer.headers.get("content-encoding") == packed
    assert packed is None or int(answer.headers["content-length"]) < 1000
    plain = asked("/gradio_api/run/predict?size=9000", **{"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers


def test_other_addresses_pass_through_untouched():
    answer = asked("/other", **{"accept-encoding": "gzip"})
    assert answer.text == "same"
    assert "content-security-policy" not in answer.headers


LOOPBACK = ["localhost", "localhost:7860", "LOCALHOST", "127.0.0.1:7860", "127.9.9.9", "[::1]:7860", "page.localhost"]
FOREIGN = [
    "evil.example", "evil.example:7860", "127.0.0.1.evil.example", "localhost.evil.example", "evil.example#localhost",
    "user@localhost", "localhost:evil", "10.0.0.7", "[fe80::1]", "", ":7860", "a b", "0x7f.1", "evil.example.",
]  # fmt: skip


@pytest.mark.parametrize("name", LOOPBACK)
def test_a_page_on_loopback_answers_to_loopback_names(name):
    assert hosts_of("127.0.0.1", environment={}).answers(name)


@pytest.mark.parametrize("name", FOREIGN)
def test_a_page_on_loopback_answers_to_no_name_of_another_site(name):
    assert not hosts_of("127.0.0.1", environment={}).answers(name)


def test_the_host_asked_for_is_answered_to():
    assert hosts_of("lab.example", environment={}).answers("lab.example:7860")
    assert not hosts_of("lab.example", environment={}).answers("other.example")


def test_a_page_on_every_card_answers_to_bare_addresses_which_no_site_can_take_for_its_name():
    hosts = hosts_of("0.0.0.0", environment={})
    assert hosts.answers("192.168.1.7:7860")
    assert hosts.answers("[2001:db8::1]:7860")
    assert not hosts.answers("evil.example")


def test_names_are_added_by_the_environment_or_by_settings_whole_or_with_all_under_them():
    hosts = hosts_of("127.0.0.1", ("lab.example",), environment={"MEDLLM_HOSTS": "Page.Clinic.jp, *.uni.example"})
    assert [hosts.answers(name) for name in ("lab.example", "page.clinic.jp", "a.uni.example")] == [True] * 3
    assert not hosts.answers("uni.example.evil")


def test_a_space_answers_to_its_own_name_and_takes_events_of_other_sites():
    hosts = hosts_of("0.0.0.0", environment={"SPACE_ID": "me/page", "SPACE_HOST": "me-page.hf.space"})
    assert hosts.answers("me-page.hf.space")
    assert not hosts.answers("evil.example")
    assert hosts.may_send("https://somewhere.example")


@pytest.mark.parametrize(
    ("origin", "may"), [("http://localhost:7860", True), ("https://evil.example", False), ("null", False)]
)
def test_only_pages_of_loopback_send_events_to_a_page_on_loopback(origin, may):
    assert hosts_of("127.0.0.1", environment={}).may_send(origin) is may


@pytest.fixture
def clock() -> list[float]:
    """The seconds, set by the test."""
    return [0.0]


@pytest.fixture
def demo() -> gr.Blocks:
    """Gradio's own queue and sessions, of a page without events."""

    def build() -> gr.Blocks:
        with gr.Blocks(analytics_enabled=False) as blocks:
            gr.Textbox()
        blocks.queue()
        StateHolder().set_blocks(blocks)
        return blocks

    return in_a_loop(build)


class Result:
    """A message with a result."""

    def __init__(self, text: str) -> None:
        self.output = {"data": [text]}


def put(demo: gr.Blocks, session: str, *texts: str) -> None:
    waiting = demo._queue.pending_messages_per_session
    if session not in waiting:
        waiting[session] = asyncio.Queue()
    for text in texts:
        waiting[session].put_nowait(Result(text))
    demo._queue.pending_event_ids_session.setdefault(session, set()).add(f"{session}-event")
    demo.state_holder[session]


def left(demo: gr.Blocks) -> list[str]:
    return list(demo._queue.pending_messages_per_session)


def watch(demo: gr.Blocks, clock: list[float]) -> PendingRequests:
    return PendingRequests(lambda: demo, lambda: clock[0])


def test_a_result_waits_a_minute_for_its_reader_and_no_longer(demo, clock):
    watched = watch(demo, clock)
    put(demo, "old", "a")
    asyncio.run(watched.sweep())
    clock[0] = middleware.WAITS - 1
    put(demo, "new", "b")
    asyncio.run(watched.sweep())
    assert left(demo) == ["old", "new"]
    clock[0] = middleware.WAITS + 1
    asyncio.run(watched.sweep())
    assert left(demo) == ["new"]
    assert list(demo._queue.pending_event_ids_session) == ["new"]


def test_a_session_that_somebody_reads_is_kept(demo, clock):
    watched = watch(demo, clock)
    put(demo, "s", "a")
    asyncio.run(watched.sweep())
    clock[0] = 10 * middleware.WAITS
    with watched.reading("s-event"):
        asyncio.run(watched.sweep())
    assert left(demo) == ["s"]


def test_more_results_than_the_bound_let_the_oldest_go_whether_many_or_large(demo, clock, monkeypatch):
    watched = watch(demo, clock)
    monkeypatch.setattr(middleware, "MOST_WAITING", 5)
    for number in range(4):
        clock[0] = float(number)
        put(demo, f"s{number}", "a", "b")
        asyncio.run(watched.sweep())
    assert left(demo) == ["s2", "s3"]
    monkeypatch.setattr(middleware, "LARGEST_WAITING", 1_000)
    clock[0] = 5.0
    put(demo, "large", "x" * 800)
    asyncio.run(watched.sweep())
    assert left(demo) == ["large"]


def test_a_reader_who_never_reads_is_let_go_at_the_bound(demo, clock, monkeypatch):
    watched = watch(demo, clock)
    monkeypatch.setattr(middleware, "MOST_FOR_ONE", 3)
    put(demo, "s", *"abcd")
    with watched.reading("s"):
        asyncio.run(watched.sweep())
    assert left(demo) == []


def test_states_of_sessions_without_a_heartbeat_are_few_and_those_of_readers_stay(demo, clock, monkeypatch):
    watched = watch(demo, clock)
    monkeypatch.setattr(middleware, "MOST_UNHELD", 2)
    for number in range(5):
        demo.state_holder[f"s{number}"]
    with watched.reading("s0"):
        asyncio.run(watched.sweep())
    assert sorted(demo.state_holder.session_data) == ["s0", "s3", "s4"]
