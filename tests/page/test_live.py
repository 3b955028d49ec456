"""Live mode: the exam's prompts go out in one batch, and its parser reads what comes back."""

import asyncio
import json
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from medllm.exam.prompts import render
from medllm.generation.factory import OnDemand
from medllm.generation.types import Delta, Reply
from medllm.page import compare_tab
from medllm.page.compare_tab import free_question
from medllm.page.grid import TEMPLATE, grid_value
from medllm.page.html import words
from medllm.page.live import Live, LiveAnswers, OnZeroGpu, RecentAnswers, open_live
from medllm.page.routes import comparison, routes
from medllm.side_by_side import Cell
from tests.page.simulated import questions
from tests.refusals import refused


class Speaker:
    """A generator that says its lines word by word and remembers what it was asked."""

    def __init__(self, line="肺炎を考える。答え：a", fails=(), endless=False):
        self.line, self.fails, self.endless = line, fails, endless
        self.batches, self.ended = [], threading.Event()

    def stream(self, requests):
        """Answer letter by letter."""
        self.batches.append(requests)
        try:
            for request in requests:
                if request.key in self.fails:
                    yield Delta(request.key, "", error=ConnectionRefusedError())
            requests = [request for request in requests if request.key not in self.fails]
            while True:
                for request in requests:
                    for letter in self.line:
                        yield Delta(request.key, letter)
                        time.sleep(0.001)  # no model writes faster
                if not self.endless:
                    break
            for request in requests:
                reply = Reply(
                    key=request.key, text=self.line, finish_reason="stop", prompt_tokens=1, completion_tokens=1
                )
                yield Delta(request.key, "", reply)
        finally:
            self.ended.set()


def live(speaker) -> Live:
    return Live({name: (speaker, name) for name in ("base", "cpt", "final")}, "test")


def last(put):
    async def run():
        end = None
        async for cells in put.cells(every=0.001):
            end = cells
        return end

    return asyncio.run(asyncio.wait_for(run(), 60))


@pytest.fixture(scope="module")
def question(results):
    return next(one for one in results.questions if one.gold == (frozenset("a"),))


def test_one_generator_gets_all_six_cells_in_one_batch(question):
    speaker = Speaker()
    end = last(live(speaker).start_round(question))
    assert [len(batch) for batch in speaker.batches] == [6]
    assert {(cell.state, cell.answer, cell.correct) for cell in end.values()} == {("done", "a", True)}
    sent = {request.key: request.text for request in speaker.batches[0]}
    assert sent["cpt/explain"] == render(question, prompt="explain", template="paper").text


def test_one_refusal_is_one_failed_cell(question):
    end = last(live(Speaker(fails=("cpt/plain",))).start_round(question))
    assert end["cpt", "plain"].fault.kind == "refused"
    assert [cell.state for cell in end.values()].count("done") == 5


def test_when_the_reader_goes_away_the_generator_is_let_go(question):
    speaker = Speaker(endless=True)

    async def run():
        cells = live(speaker).start_round(question).cells(every=0.001)
        async for state in cells:
            if all(cell.text for cell in state.values()):
                break
        await cells.aclose()

    asyncio.run(asyncio.wait_for(run(), 60))
    assert speaker.ended.wait(30)


def test_a_question_of_ones_own_has_no_verdict():
    end = last(live(Speaker("安静にします。")).start_round(free_question("かぜの治療は？", "")))
    assert {(cell.state, cell.correct, cell.status) for cell in end.values()} == {("done", None, None)}


def test_a_question_of_ones_own_is_cut_to_its_limits():
    question = free_question("長" * 9000, "\n".join("x" * 400 for _ in range(20)))
    assert len(question.text) == 4000
    assert len(question.choices) == 8
    assert {len(choice) for choice in question.choices} == {300}


def test_zero_gpu_lends_a_gpu_for_every_answer():
    speaker, lent = Speaker(), []

    def lend(call):
        def answer(*given):
            lent.append(given)
            return call(*given)

        return answer

    speaker.generate = speaker.stream
    list(OnZeroGpu(speaker, lend).stream([]))
    assert lent == [([],)]


@pytest.mark.parametrize(
    "description", ["{", "[]", '{"models": {}}', "x.json", json.dumps({"url": "http://127.0.0.1:9"})]
)
def test_a_description_that_cannot_be_read_says_what_to_give(description):
    with refused("page.bad-live-models", "MEDLLM_LIVE"):
        open_live(description)


def test_adapters_answer_in_the_numbers_that_the_description_names(monkeypatch, tmp_path):
    given = {}
    monkeypatch.setattr(
        "medllm.generation.factory.make_generators", lambda *description, **how: given.update(how) or {}
    )
    there = {"base": str(tmp_path), "adapters": {"cpt": str(tmp_path)}}
    open_live(json.dumps(there))
    usual = {"form": "completion", "given": None}
    assert given == {**usual, "engine": "local", "dtype": "float32", "quantization": "none"}
    open_live(json.dumps(there | {"dtype": "bfloat16", "quantization": "nf4", "engine": "auto"}))
    assert given == {**usual, "engine": "auto", "dtype": "bfloat16", "quantization": "nf4"}
    with refused("page.bad-live-models", "`engine` is http://10.0.0.7/v1"):
        open_live(json.dumps(there | {"engine": "http://10.0.0.7/v1"}))
    with refused("page.bad-live-models", "`quantization` is int8"):
        open_live(json.dumps(there | {"quantization": "int8"}))


def test_without_a_description_nothing_is_live(monkeypatch):
    monkeypatch.delenv("MEDLLM_LIVE", raising=False)
    assert open_live() is None
    assert open_live("none") is None


def test_live_prompts_stand_after_the_worked_examples_of_the_shown_results(question, results):
    example = replace(question, question_id="old", text="昔の問題", explanation="解説。")
    kept = replace(results, exemplars={question.benchmark: (example,)})
    asked = live(Speaker()).asking_like(kept)
    prompt = render(question, prompt="explain", template="paper", exemplars=[example])
    assert asked.prompt(question, "explain") == prompt.text
    assert "昔の問題" in asked.prompt(free_question("どれか。", "肺炎\n肺癌"), "plain")
    assert "昔の問題" not in asked.prompt(free_question("かぜの治療は？", ""), "plain")


def test_readers_who_wait_for_their_turn_are_not_taken_for_silent_and_a_gone_one_asks_nothing(question):
    speaker = Speaker(endless=True)
    asked = live(OnDemand(lambda: speaker))

    async def run():
        stop, gone = asyncio.Event(), asyncio.Event()

        async def read(end, silence):
            last = {}
            with asked.start_round(question) as put:
                async for cells in put.cells(stop=end, every=0.001, silence=silence):
                    last = cells
            return {cell.state for cell in last.values()}

        first = asyncio.create_task(read(stop, 60))
        await asyncio.sleep(0.2)
        others = [asyncio.create_task(read(gone, 2.5)) for _ in range(2)]
        await asyncio.sleep(4)
        gone.set()
        description = [await other for other in others]
        stop.set()
        return description, await first

    others, first = asyncio.run(asyncio.wait_for(run(), 60))
    assert others == [{"stopped"}, {"stopped"}]
    assert first == {"stopped"}
    assert len(speaker.batches) == 1


def test_a_prompt_that_does_not_fit_is_a_failed_cell_that_says_so(question):
    class Full(Speaker):
        """A model without room."""

        def stream(self, requests):
            """Say so."""
            for one in requests:
                yield Delta(
                    one.key,
                    "",
                    Reply(key=one.key, text="", finish_reason="too_long", prompt_tokens=9, completion_tokens=0),
                )

    end = last(live(Full()).start_round(question))
    assert {(cell.state, cell.fault.kind) for cell in end.values()} == {("failed", "too_long")}


def test_models_that_chat_may_be_asked_to_think_and_see_a_conversation(tmp_path):
    described = {
        "url": "http://127.0.0.1:9/v1",
        "models": {"final": "m"},
        "format": "chat",
        "system_prompt": "簡潔に。",
    }
    live = open_live(json.dumps(described | {"prompts": ["think", "plain"]}))
    assert live.prompts == ("plain", "think")
    assert live.prompt(questions()[0], "think").startswith("[system]\n簡潔に。\n\n[user]\n")
    with live.start_round(questions()[0]) as put:
        assert put.columns == (("final", "plain"), ("final", "think"))
        (stream,) = set(put._streams.values())
        switched = {style: request.chat_template_kwargs for (_, style), request in stream.requests.items()}
        rooms = {style: request.max_new_tokens for (_, style), request in stream.requests.items()}
    assert {style: values["enable_thinking"] for style, values in switched.items()} == {"plain": False, "think": True}
    assert rooms == {"plain": 512, "think": 2048}
    with refused("page.bad-live-models", "`think` needs `format: chat`"):
        open_live(json.dumps(described | {"format": "completion", "prompts": ["think"]}))
    with refused("page.bad-live-models", "`prompts`"):
        open_live(json.dumps(described | {"prompts": ["aloud"]}))


def test_live_answers_are_shown_and_saved_beside_the_recorded_ones_with_their_time_and_source(page):
    key = next(
        key for key in page.results.keys if (one := page.results.record(key, "base", "plain")) and one.answer != "e"
    )
    recorded = page.results.replies(key)
    cells = {
        ("base", "plain"): Cell("base", "plain", "done", "いまの答え：e", answer="e", correct=False, status="answered")
    }
    now = LiveAnswers(key, "http://here/v1", {"base": "qwen"}, cells)
    value = grid_value(recorded, key=key, models=page.results.models, notes={}, now=now)
    column = value["columns"][0]["cells"]
    assert [cell["kind"] for cell in column] == ["explain", "plain", "plain now"]
    assert now.time in column[2]["line"] and "http://here/v1 · qwen" in column[2]["line"] and "≠" in column[2]["line"]
    assert "いまの答え" in column[2]["body"] and "いまの答え" not in column[0]["body"]
    assert value["matrix"].count('<tr class="now"') == 1
    text = comparison(page, key, "en", now)
    assert text.count("## base · Answer only") == 2 and "(http://here/v1 · qwen)" in text and "いまの答え：e" in text
    assert "いまの答え" not in comparison(page, key, "en")


def test_a_download_has_only_the_answers_to_its_own_question_and_only_so_many_are_kept():
    kept = RecentAnswers(most=2)
    first, *_, last = (kept.keep(LiveAnswers(key, "", {}, {})).name for key in ("a", "b", "c"))
    assert kept.of(first, "a") is None and kept.of(last, "b") is None and kept.of(last, "c").key == "c"


def test_a_value_of_the_grid_names_its_question(page):
    for key in page.results.keys[:2]:
        value = grid_value(page.results.replies(key), key=key, models=page.results.models, notes={})
        assert value["key"] == key and 'data-key="${value.key}"' in TEMPLATE


def test_one_cell_is_asked_again_and_the_others_stay_with_the_time_of_each(question, page):
    speaker = Speaker("答え：e")
    asking = replace(page, live=live(speaker))
    kept = {
        column: Cell(*column, "done", "前の答え：a", answer="a")
        for column in live(speaker).start_round(question).columns
    }
    earlier = datetime(2026, 1, 1, tzinfo=UTC)
    given = LiveAnswers("", "here", {}, kept, at=earlier, question=question)

    async def ask() -> list[LiveAnswers]:
        again = compare_tab.asked_once_more(asking, given, ("cpt", "explain"), asyncio.Event())
        return [answers async for answers in again]

    end = asyncio.run(ask())[-1]
    assert {column for column, cell in end.cells.items() if cell.text != "前の答え：a"} == {("cpt", "explain")}
    assert end.cells["cpt", "explain"].answer == "e"
    assert end.asked_at(("cpt", "plain")) == earlier < end.asked_at(("cpt", "explain"))
    assert page.answers.of(given.name, "") == end, "a download and a comparison have it too"
    assert [len(batch) for batch in speaker.batches] == [1], "no other cell is asked"


def test_answers_to_a_readers_own_question_are_saved_and_compared_like_recorded_ones(page):
    asked = free_question("治療は。", "硝酸薬\n輸液")
    texts = {"base": "硝酸薬を使う。答え：a", "cpt": "輸液を使う。答え：b"}
    cells = {(model, "explain"): Cell(model, "explain", "done", text, answer=text[-1]) for model, text in texts.items()}
    now = page.answers.keep(LiveAnswers("", "here", {}, cells, question=asked))
    value = grid_value({}, key=None, models=tuple(texts), notes={}, now=now)
    assert "live explain base" in value["differ"] and f'data-live="{now.name}"' in value["differ"]
    assert f'data-again="explain cpt" data-live="{now.name}"' in value["columns"][1]["cells"][0]["notes"]
    client = TestClient(Starlette(routes=routes(page)))
    saved = client.get(f"/medllm/comparison.md?live={now.name}&lang=en").text
    assert "治療は。" in saved and "A. 硝酸薬" in saved and "輸液を使う。答え：b" in saved
    assert "wrong" not in saved and "Key" not in saved, "it has no key"
    assert client.get("/medllm/comparison.md?live=unknown").status_code == 404
    address = {"live": now.name, "a": "live explain base", "b": "live explain cpt"}
    table = client.get("/medllm/difference", params=address).text
    assert "<mark>硝酸薬</mark>" in table and words()["live"]["ja"] in table
    assert client.get("/medllm/difference", params=address | {"b": "live explain gone"}).status_code == 404


def test_a_live_answer_can_be_compared_with_the_recorded_one(page):
    key = page.results.keys[0]
    cells = {("base", "explain"): Cell("base", "explain", "done", "いまの解説。答え：a", answer="a")}
    now = page.answers.keep(LiveAnswers(key, "here", {}, cells))
    differ = grid_value(page.results.replies(key), key=key, models=page.results.models, notes={}, now=now)["differ"]
    assert 'value="explain base"' in differ and 'value="live explain base"' in differ
    client = TestClient(Starlette(routes=routes(page)))
    table = client.get(
        "/medllm/difference", params={"q": key, "live": now.name, "a": "explain base", "b": "live explain base"}
    )
    assert table.status_code == 200 and "いまの解説" in table.text


def test_a_free_question_has_no_letter_for_an_answer():
    cells = {("base", "plain"): Cell("base", "plain", "done", "C 型肝炎を疑う。", answer="c")}
    free = LiveAnswers("", "here", {}, {}, question=free_question("何を疑うか。", ""))
    assert free.having(cells).cells["base", "plain"].answer is None
    assert LiveAnswers("a", "here", {}, {}).having(cells).cells["base", "plain"].answer == "c"
