"""Results and sessions that nobody holds: let go after their time, and never more than the bound."""

import asyncio

import gradio as gr
import pytest
from gradio.state_holder import StateHolder

from medllm.page import limits
from medllm.page.limits import PendingRequests
from tests.page.conftest import in_a_loop


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
    clock[0] = limits.WAITS - 1
    put(demo, "new", "b")
    asyncio.run(watched.sweep())
    assert left(demo) == ["old", "new"]
    clock[0] = limits.WAITS + 1
    asyncio.run(watched.sweep())
    assert left(demo) == ["new"]
    assert list(demo._queue.pending_event_ids_session) == ["new"]


def test_a_session_that_somebody_reads_is_kept(demo, clock):
    watched = watch(demo, clock)
    put(demo, "s", "a")
    asyncio.run(watched.sweep())
    clock[0] = 10 * limits.WAITS
    with watched.reading("s-event"):
        asyncio.run(watched.sweep())
    assert left(demo) == ["s"]


def test_more_results_than_the_bound_let_the_oldest_go_whether_many_or_large(demo, clock, monkeypatch):
    watched = watch(demo, clock)
    monkeypatch.setattr(limits, "MOST_WAITING", 5)
    for number in range(4):
        clock[0] = float(number)
        put(demo, f"s{number}", "a", "b")
        asyncio.run(watched.sweep())
    assert left(demo) == ["s2", "s3"]
    monkeypatch.setattr(limits, "LARGEST_WAITING", 1_000)
    clock[0] = 5.0
    put(demo, "large", "x" * 800)
    asyncio.run(watched.sweep())
    assert left(demo) == ["large"]


def test_a_reader_who_never_reads_is_let_go_at_the_bound(demo, clock, monkeypatch):
    watched = watch(demo, clock)
    monkeypatch.setattr(limits, "MOST_FOR_ONE", 3)
    put(demo, "s", *"abcd")
    with watched.reading("s"):
        asyncio.run(watched.sweep())
    assert left(demo) == []


def test_states_of_sessions_without_a_heartbeat_are_few_and_those_of_readers_stay(demo, clock, monkeypatch):
    watched = watch(demo, clock)
    monkeypatch.setattr(limits, "MOST_UNHELD", 2)
    for number in range(5):
        demo.state_holder[f"s{number}"]
    with watched.reading("s0"):
        asyncio.run(watched.sweep())
    assert sorted(demo.state_holder.session_data) == ["s0", "s3", "s4"]
