"""One question to N models under every prompt, live; every cell has its own state and fault."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from threading import Thread
from typing import Any, Literal

from medllm.exam.extract.answer import parse
from medllm.exam.grading import grade
from medllm.exam.prompts import Prompt
from medllm.exam.question import Question
from medllm.exam.record import CUT_OFF, PromptStyle, Record, Status
from medllm.generation.types import Delta, Generator, NoReplyError, Reply, Request
from medllm.recipe.servers import switches

State = Literal["absent", "waiting", "running", "stopped", "failed", "done"]
Flip = Literal["lost", "harmed", "unread", "cut", "gained"]
FaultKind = Literal["silent", "refused", "answered", "too_long", "broken"]
Column = tuple[str, PromptStyle]
Generators = Mapping[str, tuple[Generator, str]]
"""For each displayed model: the generator that answers, and the generator's own name for the model."""

BEAT = 5.0
"""Seconds after which the cells are yielded again without news."""


@dataclass(frozen=True, slots=True)
class CellFault:
    """Why one cell has no reply, worded for a person; the other cells go on."""

    kind: FaultKind
    detail: str = ""
    error: Exception | None = field(default=None, repr=False, compare=False)
    """The error itself, for the user who runs the program; never for a page, since its text may hold an address."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One model's live reply under one prompt, as far as it has come; a recorded one is a `Record`."""

    model: str
    prompt: PromptStyle
    state: State
    text: str = ""
    reasoning: str = ""
    """What the model thought before its reply."""
    status: Status | None = None
    answer: str | None = None
    correct: bool | None = None
    """None where there is no key to compare with."""
    prohibited: str | None = None
    fault: CellFault | None = None


class Thought(str):
    """A piece of what a model thinks before its reply."""

    __slots__ = ()


Cells = Mapping[Column, Cell]
Ask = Callable[[str, PromptStyle], AsyncIterator[str]]
"""Puts the question to one model under one prompt and yields the reply piece by piece."""
Judge = Callable[[str, PromptStyle, str], Cell]
"""Reads a whole reply (model, prompt, text) into a finished cell."""


def flip_between(plain: Cell | Record | None, explained: Cell | Record | None) -> Flip | None:
    """What explaining did to the verdict: a right answer lost, harmed (prohibited), unread or cut, or one gained."""
    if plain is None or explained is None or None in (plain.correct, explained.correct):
        return None
    if plain.correct == explained.correct:
        return None
    if not plain.correct:
        return "gained"
    if explained.answer is None:
        return "cut" if explained.status in CUT_OFF else "unread"
    return "harmed" if explained.prohibited else "lost"


async def stream(
    columns: Sequence[Column],
    ask: Ask,
    judge: Judge,
    *,
    stop: asyncio.Event,
    every: float = 0.1,
    silence: float | None = 120.0,
) -> AsyncIterator[Cells]:
    """Yield all cells together, at most once each `every` seconds, until all are finished or `stop` is set.

    The producers end with this generator, before its last yield: a reader that goes away (a closed browser) cancels
    all of them. Only a yield detects that the reader is gone, so the generator yields now and then without news.
    A producer that is silent for `silence` seconds fails, alone; with None it is waited for.
    """
    board = _Board({column: Cell(*column, "waiting") for column in columns})
    tasks = [asyncio.create_task(board.fill(column, ask, judge, silence)) for column in columns]
    try:
        yield dict(board.cells)
        while not stop.is_set() and not all(task.done() for task in tasks):
            await _either(board.news, stop, BEAT)
            board.news.clear()
            yield dict(board.cells)
            await _either(stop, stop, every)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    yield _ended(board.cells)


@dataclass(frozen=True)
class _Board:
    """The current cells, and the event that is set when one changes."""

    cells: dict[Column, Cell]
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def fill(self, column: Column, ask: Ask, judge: Judge, silence: float | None) -> None:
        """Fill one cell to its end; a fault of this cell must not end the other five."""
        try:
            async for text in _pieces(ask(*column), silence):
                if text:  # an empty piece only means that the turn has not come yet
                    cell = self.cells[column]
                    if isinstance(text, Thought):
                        cell = replace(cell, state="running", reasoning=cell.reasoning + text)
                    else:
                        cell = replace(cell, state="running", text=cell.text + text)
                    self.cells[column] = cell
                    self.news.set()
            self.cells[column] = judge(*column, self.cells[column].text)
        except Exception as fault:
            self.cells[column] = replace(self.cells[column], state="failed", fault=_fault(fault, silence))
        finally:
            self.news.set()


async def _pieces(reply: AsyncIterator[str], silence: float | None) -> AsyncIterator[str]:
    """Yield the pieces of a reply; TimeoutError when the next one does not come in time."""
    try:
        while True:
            try:
                # Not wait_for: until Python 3.12 it forgets a cancellation that comes together with a piece.
                async with asyncio.timeout(silence):
                    piece = await anext(reply)
            except StopAsyncIteration:
                return
            yield piece
    finally:
        close = getattr(reply, "aclose", None)
        if close is not None:
            await close()


async def _either(first: asyncio.Event, second: asyncio.Event, seconds: float) -> None:
    """Wait until one of two events is set or the time is over, so that a stop works while every producer is silent."""
    waits = [asyncio.create_task(event.wait()) for event in {first, second}]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def _fault(fault: Exception, silence: float | None) -> CellFault:
    """Return the kind of a failure for display, without its text, which may contain an address or a key."""
    if isinstance(fault, TimeoutError):
        return CellFault("silent", f"{silence or 0:.0f}", fault)
    if isinstance(fault, NoReplyError) and fault.status:
        return CellFault("answered", str(fault.status), fault)
    refused = isinstance(fault, NoReplyError | OSError)
    return CellFault("refused" if refused else "broken", type(fault).__name__, fault)


def _ended(cells: Cells) -> Cells:
    """Mark every cell that still waits or runs as stopped."""
    return {
        column: replace(cell, state="stopped") if cell.state in ("waiting", "running") else cell
        for column, cell in cells.items()
    }


class Round:
    """One question on its way to every model under every prompt: it builds the requests and reads the replies.

    Each generator gets all its requests at once. When no cell is read any more (stop, a closed browser), its thread
    releases it.

    Args:
        question: The question with its key; None for a question that is not scored.
        values: Values of the chat template by prompt, for models that are asked by chat.
        only: One cell that is asked again, as it was asked with the others; None asks all.
    """

    def __init__(
        self,
        generators: Generators,
        prompts: Mapping[PromptStyle, Prompt],
        max_new_tokens: Mapping[PromptStyle, int],
        question: Question | None,
        values: Mapping[PromptStyle, Mapping[str, Any]] | None = None,
        only: Column | None = None,
    ) -> None:
        self.question = question
        columns = [(model, style) for model in generators for style in prompts]
        self.columns: tuple[Column, ...] = tuple(columns if only is None else [only])
        requests: dict[int, dict[Column, Request]] = {}
        for model, style in self.columns:
            generator, name = generators[model]
            named = (values or {}).get(style, {})
            request = Request(
                **prompts[style].request_fields,
                key=f"{model}/{style}",
                model=name,
                max_new_tokens=max_new_tokens[style],
                chat_template_kwargs={**switches(style == "think"), **named} if "think" in prompts else named,
            )
            requests.setdefault(id(generator), {})[model, style] = request
        self._streams: dict[Column, _Stream] = {}
        for own in requests.values():
            generator = generators[next(iter(own))[0]][0]
            self._streams |= dict.fromkeys(own, _Stream(generator, own))

    def __enter__(self) -> Round:
        return self

    def __exit__(self, *_: object) -> None:
        """End the round's generators, however the round ended."""
        for each in self._streams.values():
            each.let_go()

    def cells(
        self, *, stop: asyncio.Event | None = None, every: float = 0.1, silence: float | None = None
    ) -> AsyncIterator[Cells]:
        """Yield all cells together as they fill, as `stream` does."""
        return stream(self.columns, self._ask, self._judge, stop=stop or asyncio.Event(), every=every, silence=silence)

    def _ask(self, model: str, prompt: PromptStyle) -> AsyncIterator[str]:
        return self._streams[model, prompt].read((model, prompt))

    def _judge(self, model: str, prompt: PromptStyle, text: str) -> Cell:
        """Return the finished cell, read by the exam's own parser."""
        reply = self._streams[model, prompt].replies.get((model, prompt))
        if reply and reply.finish_reason == "too_long":
            return Cell(model, prompt, "failed", fault=CellFault("too_long"))
        whole, reason = (reply.text, reply.finish_reason) if reply else (text, None)
        cell = Cell(model, prompt, "done", whole, reply.reasoning if reply else "")
        if self.question is not None:
            read = grade(
                self.question, whole, model=model, prompt=prompt, finish_reason=reason, reasoning=cell.reasoning
            )
            verdict = {name: getattr(read, name) for name in ("status", "answer", "correct", "prohibited")}
            return replace(cell, **verdict)
        return replace(cell, answer=parse(whole, None, finish_reason=reason).answer)


class _Stream:
    """The requests of one generator, streamed in a thread of their own; each cell reads its own reply."""

    def __init__(self, generator: Generator, requests: Mapping[Column, Request]) -> None:
        self.generator, self.requests = generator, dict(requests)
        self.replies: dict[Column, Reply] = {}
        self._column = {request.key: column for column, request in self.requests.items()}
        self._pieces: dict[Column, asyncio.Queue[str | Exception | None]] = {}
        self._reading: set[Column] = set()

    async def read(self, column: Column) -> AsyncIterator[str]:
        """Yield the reply of one cell, piece by piece."""
        if not self._pieces:
            self._pieces = {each: asyncio.Queue() for each in self.requests}
            self._reading = set(self.requests)
            Thread(target=self._answer, args=(asyncio.get_running_loop(),), daemon=True).start()
        try:
            while (piece := await self._pieces[column].get()) is not None:
                if isinstance(piece, Exception):
                    raise piece
                yield piece
        finally:
            self._reading.discard(column)

    def let_go(self) -> None:
        """Mark every cell as no longer read."""
        self._reading.clear()

    def _answer(self, loop: asyncio.AbstractEventLoop) -> None:
        def hand(column: Column, piece: str | Exception | None) -> None:
            with suppress(RuntimeError):  # the loop is closed: no reader is left
                loop.call_soon_threadsafe(self._pieces[column].put_nowait, piece)

        end: Exception = EOFError("the generator ended without a reply to this request")
        try:
            for delta in self._deltas():
                column = self._column[delta.key]
                if delta.reply is not None:
                    self.replies[column] = delta.reply
                if delta.reasoning:
                    hand(column, Thought(delta.reasoning))
                if delta.text or not delta.reasoning:
                    hand(column, delta.text)
                if delta.reply is not None or delta.error is not None:
                    hand(column, delta.error)
        except Exception as fault:
            end = fault
        for column in self.requests:
            hand(column, end)

    def _deltas(self) -> Iterator[Delta]:
        """Yield the generator's pieces for as long as a cell is read."""
        pieces = self.generator.stream(list(self.requests.values()))
        try:
            for delta in pieces:
                if not self._reading:
                    return
                yield delta
        finally:
            close = getattr(pieces, "close", None)
            if close is not None:
                close()
