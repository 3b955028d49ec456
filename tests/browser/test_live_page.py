"""Live mode in the browser: six cells write at once, stop leaves none writing, a closed browser ends its producers."""

import threading
import time

import pytest

from medllm.generation.types import Delta, Reply
from medllm.page.html import words
from medllm.page.live import Live
from tests.browser.conftest import opened, served
from tests.page.simulated import questions, write, write_table

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
        assert seen.page.locator("#grid .now").count() == 0
        recorded = seen.page.locator("#grid .reply:not(.now)").all_inner_texts()
        seen.page.click("#go")
        seen.wait("() => document.querySelectorAll('#grid .now .badge.right, #grid .now .badge.wrong').length === 6")
        assert seen.page.locator("#grid .reply:not(.now)").all_inner_texts() == recorded, "they stay beside"
        seen.wait(
            "() => [...document.querySelectorAll('#grid .reply.now')].every((a) => a.textContent.includes('考えた'))"
        )
        heads = seen.page.locator("#grid .line.now .asked").all_inner_texts()
        assert len(heads) == 6 and all(words()["live"]["ja"] in head and "test" in head for head in heads)
        link = seen.page.get_attribute(".tools a[href*='comparison.md']", "href")
        saved = seen.page.request.get(seen.address + link).text()
        assert saved.count("考えた。答え：a") == 6 and saved.count(f"· {words()['live']['ja']} ") == 6
        assert all(text in saved for text in seen.page.locator("#grid .reply:not(.now) .formatted p").all_inner_texts())
        assert seen.page.evaluate("window.ran") == []
        assert seen.complaints == []


def test_stop_leaves_no_cell_writing_and_ends_the_producers(chromium, tmp_path_factory, evaluation_folder):
    writer = Writer(endless=True)
    for seen in page_of(chromium, tmp_path_factory, evaluation_folder, writer):
        seen.open()
        seen.page.click("#go")
        seen.wait("() => document.querySelectorAll('#grid .badge.running').length === 6")
        assert "${alert(1)}<b>" in seen.page.text_content("#grid .now.reply.explain")
        seen.page.click("#stop")
        seen.wait("() => document.querySelectorAll('#grid .badge.stopped').length === 6")
        assert seen.page.locator("#grid .badge.running, #grid .badge.waiting").count() == 0
        assert writer.ended.acquire(timeout=60)


def test_another_question_ends_the_answers_to_the_last_one(chromium, tmp_path_factory, evaluation_folder):
    writer = Writer(endless=True)
    for seen in page_of(chromium, tmp_path_factory, evaluation_folder, writer):
        seen.open("?q=kakuu/115A1")
        seen.page.click("#go")
        seen.wait("() => document.querySelectorAll('#grid .badge.running').length === 6")
        seen.page.get_by_role("button", name=words()["next"]["ja"]).click()
        seen.wait("() => document.querySelector('#card').innerText.includes('115A2')")
        seen.wait("() => document.querySelectorAll('#grid .badge.running').length === 0")
        assert writer.ended.acquire(timeout=60)
        seen.page.wait_for_timeout(1500)
        assert "考え中" not in seen.page.text_content("#grid")
        seen.page.click("#go")
        seen.wait("() => document.querySelectorAll('#grid .badge.running').length === 6")


def test_a_live_answer_is_compared_with_its_recorded_one_and_one_cell_is_asked_again(
    chromium, tmp_path_factory, evaluation_folder
):
    writer = Writer(endless=False)
    for seen in page_of(chromium, tmp_path_factory, evaluation_folder, writer):
        seen.open("?q=kakuu/115A1")
        seen.page.click("#go")
        seen.wait("() => document.querySelectorAll('#grid [data-again]').length === 6")
        seen.page.click("#grid .differ summary")
        offered = seen.page.locator("[data-reply=b] option").all_inner_texts()
        assert sum(words()["live"]["ja"] in text for text in offered) == 6
        seen.page.select_option("[data-reply=b]", "live explain base")
        seen.page.locator(".differ-table th", has_text=words()["live"]["ja"]).wait_for()
        assert "考えた" in seen.page.inner_text(".differ-table")
        seen.page.click("#grid [data-again='explain cpt']")
        seen.wait("() => document.querySelectorAll('#grid .badge.running').length === 1")
        assert seen.page.locator("#grid [data-again]").count() == 5, "the others stay"
        seen.wait("() => document.querySelectorAll('#grid [data-again]').length === 6")
        assert seen.page.input_value("[data-reply=b]") == "live explain base"
        assert seen.complaints == []


def test_a_value_of_another_question_is_not_shown(chromium, tmp_path_factory, evaluation_folder):
    for seen in page_of(chromium, tmp_path_factory, evaluation_folder, Writer(endless=False)):
        seen.open("?q=kakuu/115A1")
        assert seen.page.locator("#grid .columns").is_visible()
        seen.page.evaluate("document.querySelector('#grid .columns').dataset.key = 'kakuu/115A2'")
        seen.wait("() => document.querySelector('#grid').hasAttribute('data-stale')")
        assert not seen.page.locator("#grid .columns").is_visible()
        seen.page.click("#go-next")
        seen.wait("() => document.querySelector('#card h2').innerText === '115A2'")
        seen.page.locator("#grid .columns").wait_for(state="visible")


def test_a_readers_own_question_is_saved_linked_and_asked_again_by_cell(chromium, tmp_path_factory, evaluation_folder):
    for seen in page_of(chromium, tmp_path_factory, evaluation_folder, Writer(endless=False)):
        seen.open("?tab=ask")
        assert seen.page.locator("#own-grid .model").count() == 0, "nothing is asked yet"
        seen.page.fill("#own textarea", "治療は？ $&<b>")
        seen.page.fill("#own-choices textarea", "硝酸薬\n輸液")
        seen.page.click("#ask-go")
        seen.wait("() => document.querySelectorAll('#own-grid [data-again]').length === 6")
        link = seen.page.locator("[role=tabpanel] a[href*='comparison.md?live=']").last.get_attribute("href")
        saved = seen.page.request.get(seen.address + link).text()
        assert "治療は？ $&<b>" in saved and saved.count("考えた。答え：a") == 6
        seen.page.click("#own-grid [data-again='plain base']")
        seen.wait("() => document.querySelectorAll('#own-grid .badge.running').length === 1")
        seen.wait("() => document.querySelectorAll('#own-grid [data-again]').length === 6")
        seen.page.evaluate("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
        seen.page.click("[data-own-link]")
        copied = seen.page.evaluate("window.copied")
        assert "%E6%B2%BB" in copied.split("#")[1] and "%E6%B2%BB" not in copied.split("#")[0], "no server gets it"
        for other in opened(chromium, seen.address):
            other.open(copied.removeprefix(seen.address))
            other.wait("() => document.querySelector('#own textarea').value === '治療は？ $&<b>'")
            assert other.page.input_value("#own-choices textarea") == "硝酸薬\n輸液"
            other.page.click("#ask-go")
            other.wait("() => document.querySelectorAll('#own-grid .badge.right, #own-grid .model').length === 3")
        assert seen.page.evaluate("window.ran") == [] and seen.complaints == []


def test_a_question_that_cannot_be_asked_has_its_reason_on_the_page(chromium, tmp_path_factory, tmp_path):
    folder = write(tmp_path / "shown", per_section=2)
    example = questions(2)[0]
    write_table([example.to_row()], folder / "exemplars" / "kakuu.parquet")
    for seen in page_of(chromium, tmp_path_factory, folder, Writer(endless=False)):
        seen.open("?tab=ask")
        seen.page.click("#ask-go")
        seen.page.get_by_text(words()["nothing_asked"]["ja"]).wait_for()
        seen.page.fill("#own textarea", example.text)
        seen.page.fill("#own-choices textarea", "\n".join(example.choices))
        seen.page.click("#ask-go")
        seen.page.get_by_text(words()["fault_asked"]["ja"].split("{")[0]).wait_for()
        assert seen.page.get_by_text(words()["nothing_asked"]["ja"]).count() == 0


def test_a_closed_browser_ends_its_producers(chromium, tmp_path_factory, evaluation_folder):
    writer = Writer(endless=True)
    for seen in page_of(chromium, tmp_path_factory, evaluation_folder, writer):
        seen.open("?tab=ask")
        seen.page.fill("#own textarea", "かぜの治療は？")
        seen.page.click("#ask-go")
        seen.wait("() => document.querySelectorAll('#own-grid .badge.running').length === 6")
        seen.page.context.close()
        assert writer.ended.acquire(timeout=60)
