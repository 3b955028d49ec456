"""Live comparing: cells stream together, fail alone, stop at once and leave nothing running behind."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from medllm.exam.prompts import render
from medllm.exam.question import own_question
from medllm.generation.types import Delta, NoReplyError, Reply
from medllm.side_by_side import Cell, Round, flip_between, stream
from tests.exam.making import question

COLUMNS = tuple((model, prompt) for model in ("base", "cpt", "final") for prompt in ("plain", "explain"))


async def two_words(model: str, prompt: str) -> AsyncIterator[str]:
    yield f"{model} "
    await asyncio.sleep(0)
    yield "答え:a"


def judged(model: str, prompt: str, text: str) -> Cell:
    return Cell(model, prompt, "done", text=text, status="answered", answer="a", correct=True)


def last_of(ask, *, stop=None, silence=30.0, take=None):
    async def run():
        seen = []
        cells = stream(COLUMNS, ask, judged, stop=stop or asyncio.Event(), every=0.001, silence=silence)
        async for state in cells:
            seen.append(state)
            if take and len(seen) == take:
                break
        await cells.aclose()
        return seen

    return asyncio.run(run())


def test_all_cells_end_done_with_their_whole_text():
    states = last_of(two_words)
    assert {cell.state for cell in states[0].values()} == {"waiting"}
    assert {column: cell.text for column, cell in states[-1].items()} == {c: f"{c[0]} 答え:a" for c in COLUMNS}
    assert {cell.state for cell in states[-1].values()} == {"done"}


def test_a_failing_cell_shows_its_fault_and_the_other_five_go_on():
    async def one_breaks(model, prompt):
        if (model, prompt) == ("cpt", "explain"):
            raise ConnectionRefusedError("the address with a secret in it")
        async for piece in two_words(model, prompt):
            yield piece

    end = last_of(one_breaks)[-1]
    broken = end.pop(("cpt", "explain"))
    assert broken.state == "failed"
    assert (broken.fault.kind, broken.fault.detail) == ("refused", "ConnectionRefusedError")
    assert {cell.state for cell in end.values()} == {"done"}


def test_a_cell_that_hangs_fails_after_its_silence_and_alone():
    async def one_hangs(model, prompt):
        if (model, prompt) == ("base", "plain"):
            await asyncio.Event().wait()
        async for piece in two_words(model, prompt):
            yield piece

    end = last_of(one_hangs, silence=0.3)[-1]
    assert end["base", "plain"].fault.kind == "silent"
    assert [cell.state for cell in end.values()].count("done") == 5


def test_stop_is_seen_while_all_are_silent_and_leaves_no_cell_running():
    async def run():
        stop, ended = asyncio.Event(), []

        async def silent(model, prompt):
            try:
                yield "…"
                await asyncio.Event().wait()
            finally:
                ended.append((model, prompt))

        states = []
        async for state in stream(COLUMNS, silent, judged, stop=stop, every=0.001):
            states.append(state)
            if all(cell.state == "running" for cell in state.values()):
                stop.set()
        return states[-1], ended

    end, ended = asyncio.run(asyncio.wait_for(run(), 30))
    assert {cell.state for cell in end.values()} == {"stopped"}
    assert sorted(ended) == sorted(COLUMNS)


def test_a_reader_that_goes_away_stops_every_producer():
    async def run():
        ended, before = [], asyncio.all_tasks()

        async def endless(model, prompt):
            try:
                while True:
                    yield "あ"
                    await asyncio.sleep(0.001)
            finally:
                ended.append((model, prompt))

        cells = stream(COLUMNS, endless, judged, stop=asyncio.Event(), every=0.001)
        async for state in cells:
            if all(cell.text for cell in state.values()):
                break
        await cells.aclose()
        return ended, asyncio.all_tasks() - before

    ended, left = asyncio.run(asyncio.wait_for(run(), 30))
    assert sorted(ended) == sorted(COLUMNS)
    assert left == set()


class Writer:
    """A generator that writes its line in two pieces; requests of `failing` models end with an error."""

    def __init__(self, line, failing=()):
        self.line, self.failing, self.batches = line, failing, []

    def stream(self, requests):
        self.batches.append({request.key: request for request in requests})
        for request in requests:
            if request.model in self.failing:
                yield Delta(
                    request.key, "", error=NoReplyError("generation.error-answered", "http://secret.host/v1", 404)
                )
                continue
            yield Delta(request.key, self.line[:2])
            yield Delta(request.key, self.line[2:])
            reply = Reply(key=request.key, text=self.line, finish_reason="stop", prompt_tokens=1, completion_tokens=1)
            yield Delta(request.key, "", reply)


def ask_round(generators, asked):
    prompts = {style: render(asked, prompt=style, template="paper") for style in ("plain", "explain")}
    with Round(generators, prompts, {"plain": 8, "explain": 64}, asked if asked.has_key else None) as put:

        async def run():
            return [state async for state in put.cells(every=0.001)][-1]

        return asyncio.run(asyncio.wait_for(run(), 30))


def test_each_generator_gets_its_models_at_once_under_its_own_names_and_with_the_prompts_lengths():
    adapters, server = Writer("答え:b"), Writer("答え:c")
    end = ask_round({"base": (adapters, "base"), "final": (adapters, "rpo"), "gpt": (server, "gpt-4o")}, question())
    assert [sorted(batch) for batch in adapters.batches] == [
        ["base/explain", "base/plain", "final/explain", "final/plain"]
    ]
    (sent,) = server.batches
    assert {request.model for request in sent.values()} == {"gpt-4o"}
    assert [sent["gpt/plain"].max_new_tokens, sent["gpt/explain"].max_new_tokens] == [8, 64]
    assert sent["gpt/plain"].stop == ("\nQuestion:",)
    assert {column: (cell.answer, cell.correct, cell.status) for column, cell in end.items()} == {
        (model, style): (answer, answer == "b", "answered")
        for model, answer in (("base", "b"), ("final", "b"), ("gpt", "c"))
        for style in ("plain", "explain")
    }


def test_one_models_error_is_kept_in_its_cells_for_the_program_and_the_others_answer():
    end = ask_round({"base": (Writer("答え:b", ["x"]), "y"), "gpt": (Writer("", ["x"]), "x")}, question())
    assert end["base", "plain"].correct and end["base", "explain"].correct
    fault = end["gpt", "plain"].fault
    assert (fault.kind, fault.detail, type(fault.error)) == ("answered", "404", NoReplyError)
    assert "secret" not in repr(fault)


def test_a_generator_that_ends_without_a_reply_fails_its_cells_and_nothing_waits():
    class Mute(Writer):
        def stream(self, requests):
            yield Delta(requests[0].key, "…")

    end = ask_round({"base": (Mute(""), "base")}, question())
    assert {cell.fault.kind for cell in end.values()} == {"broken"}


def test_a_question_of_ones_own_is_not_graded():
    end = ask_round({"base": (Writer("寝る。"), "base")}, own_question("かぜの治療は？"))
    assert {(cell.text, cell.correct, cell.status) for cell in end.values()} == {("寝る。", None, None)}


def test_a_flip_needs_two_verdicts_that_differ():
    right = Cell("base", "plain", "done", answer="a", correct=True)
    wrong = Cell("base", "explain", "done", answer="b", correct=False)
    unread = Cell("base", "explain", "done", answer=None, correct=False)
    free = Cell("base", "explain", "done", correct=None)
    assert flip_between(right, wrong) == "lost"
    assert flip_between(wrong, right) == flip_between(unread, right) == "gained"
    assert flip_between(right, unread) == "unread", "a reply without an answer did not become wrong"
    assert flip_between(right, replace(unread, status="truncated")) == "cut"
    assert flip_between(right, replace(wrong, prohibited="b")) == "harmed"
    assert flip_between(wrong, unread) is None
    assert flip_between(right, right) is None
    assert flip_between(right, free) is None
    assert flip_between(None, wrong) is None


@pytest.mark.parametrize("steps", range(8))
def test_a_piece_that_comes_together_with_the_stop_does_not_keep_its_producer_running(steps):
    async def run():
        stop = asyncio.Event()

        async def late(model, prompt):
            await stop.wait()
            for _ in range(steps):
                await asyncio.sleep(0)
            while True:
                yield "あ"
                await asyncio.sleep(0.001)

        asyncio.get_running_loop().call_later(0.01, stop.set)
        async for state in stream(COLUMNS, late, judged, stop=stop, every=0.001):
            last = state
        return last

    end = asyncio.run(asyncio.wait_for(run(), 60))
    assert {cell.state for cell in end.values()} == {"stopped"}


def test_while_all_are_silent_something_is_yielded_so_that_a_gone_reader_is_noticed(monkeypatch):
    monkeypatch.setattr("medllm.side_by_side.BEAT", 0.01)

    async def hangs(model, prompt):
        await asyncio.Event().wait()
        yield ""

    assert len(last_of(hangs, take=5)) == 5


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (NoReplyError("generation.unreachable", "http://secret.host/v1"), ("refused", "NoReplyError")),
        (NoReplyError("generation.error-answered", "http://secret.host/v1", 404), ("answered", "404")),
        (KeyError("hf_secret"), ("broken", "KeyError")),
    ],
)
def test_a_fault_is_shown_by_its_kind_and_never_by_a_text_that_may_hold_an_address(fault, expected):
    async def breaks(model, prompt):
        raise fault
        yield ""

    assert {(cell.fault.kind, cell.fault.detail) for cell in last_of(breaks)[-1].values()} == {expected}
