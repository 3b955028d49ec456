"""Live mode in the browser: six cells write at once, stop leaves none writing, a closed browser ends its producers."""

import threading
import time

import pytest

from medllm.generation.types import Delta, Reply
from medllm.page.html import words
from medllm.page.live import Live
from tests.browser.conftest import opened, served

pytestmark = [pytest.mark.browser, pytest.mark.slow]


class Writer:
    """A generator at the pace of a model; `endless` writes until nobody listens."""

    def __init__(self, *, endless: bool) -> None:
        self.endless, self.ended = endless, threading.Semaphore(0)

    def stream(self, requests):
        """Write a piece to every request in turn."""
        try:
            for turn in range(10**9 if self.endless else 5):
                for request in requests:
                    yield Delta(request.key, f"考え中{turn}。${{alert(1)}}<b>")
                time.sleep(0.25)
            for request in requests:
                text = "考えた。答え：a"
                reply = Reply(key=request.key, text=text, finish_reason="stop", prompt_tokens=1, completion_tokens=9)
                yield Delta(request.key, "", reply)
        finally:
            self.ended.release()


def page_of(chromium, tmp_path_factory, folder, writer):
    live = Live({name: (writer, name) for name in ("base", "cpt", "final")}, "test")
    for address in served(tmp_path_factory, results=str(folder), live=live):
        yield from opened(chromium, address)


def test_six_cells_are_written_to_their_end_and_judged(chromium, tmp_path_factory, evaluation_folder):
    writer = Writer(endless=False)
    for seen in page_of(chromium, tmp_path_factory, evaluation_folder, writer):
        seen.open()
        assert words()["live"]["ja"] in seen.page.inner_text(".bar")
        seen.page.click("#go")
        seen.wait("() => document.querySelectorAll('#grid .badge.right, #grid .badge.wrong').length === 6")
        seen.wait(
            "() => [...document.querySelectorAll('#grid .reply')].every((one) => one.textContent.includes('考えた'))"
        )
        assert seen.page.evaluate("window.ran") == []
        assert seen.complaints == []


def test_stop_leaves_no_cell_writing_and_ends_the_producers(chromium, tmp_path_factory, evaluation_folder):
    writer = Writer(endless=True)
    for seen in page_of(chromium, tmp_path_factory, evaluation_folder, writer):
        seen.open()
        seen.page.click("#go")
        seen.wait("() => document.querySelectorAll('#grid .badge.running').length === 6")
        assert "${alert(1)}<b>" in seen.page.text_content("#grid .reply.explain")
        seen.page.click("#stop")
        seen.wait("() => document.querySelectorAll('#grid .badge.stopped').length === 6")
        assert seen.page.locator("#grid .badge.running, #grid .badge.waiting").count() == 0
        assert writer.ended.acquire(timeout=60)


def test_a_closed_browser_ends_its_producers(chromium, tmp_path_factory, evaluation_folder):
    writer = Writer(endless=True)
    for seen in page_of(chromium, tmp_path_factory, evaluation_folder, writer):
        seen.open("?tab=ask")
        seen.page.fill("#own textarea", "かぜの治療は？")
        seen.page.click("#ask-go")
        seen.wait("() => document.querySelectorAll('#own-grid .badge.running').length === 6")
        seen.page.context.close()
        assert writer.ended.acquire(timeout=60)
