"""Shared parts of all tabs: HTML blocks without Gradio's own styling, private events, and labels in both languages."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import gradio as gr

from medllm.page.html import LANGUAGES, words
from medllm.page.live import Live
from medllm.page.selection import OUTCOMES, SORTS
from medllm.side_by_side import Cells, Round

PACE = 0.2
"""Seconds between two states of a stream: fast enough for reading, slow enough for a phone's layout."""

TABS = ("compare", "scores", "flips", "ask", "review", "about")

LABELS = (
    "accuracy_measure", "all", "category", "exam", "find", "flipped", "generate", "measure", "model", "more", "next",
    "outcome", "own_choices", "own_question", "points_measure", "previous", "random", "section", "stop", "text_only",
    "which", "year", *TABS, *(f"{outcome}_long" for outcome in OUTCOMES), "sort",
    *(f"sort_{name or 'exam'}" for name in SORTS), *(name for name in words() if name.startswith("both_")),
)  # fmt: skip
I18N = gr.I18n(**{language: {key: words()[key][language] for key in LABELS} for language in LANGUAGES})
"""The words on Gradio's own controls, as its translation table: the page carries it, so it has only these words."""


class Stops:
    """Stop signals, one per reader: a reader can stop only the text being written for that reader."""

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Event] = {}

    @contextmanager
    def of(self, request: gr.Request) -> Iterator[asyncio.Event]:
        """Yield the reader's stop signal while a text is being written; an earlier text of the same reader ends."""
        session = str(request.session_hash)
        if session in self._running:
            self._running[session].set()
        stop = self._running[session] = asyncio.Event()
        try:
            yield stop
        finally:
            if self._running.get(session) is stop:
                del self._running[session]

    async def end(self, request: gr.Request) -> None:
        """Stop the text being written for this reader."""
        stop = self._running.get(str(request.session_hash))
        if stop is not None:
            stop.set()


def described_by(live: Live, put: Round, stop: asyncio.Event) -> AsyncIterator[Cells]:
    """Return the cells of a round as they fill, at a readable pace."""
    return put.cells(stop=stop, every=PACE, silence=live.silence)


def block(value: object = "", **settings: Any) -> gr.HTML:  # noqa: ANN401  (gradio's own keywords)
    """Create a block of the page's own HTML."""
    return gr.HTML(value, apply_default_css=False, padding=False, container=False, **settings)


def on(
    listener: Callable[..., Any],
    call: Callable[..., Any] | None,
    inputs: object = None,
    outputs: object = None,
    **settings: Any,  # noqa: ANN401  (gradio's own keywords)
) -> Any:  # noqa: ANN401  (gradio's dependency)
    """Bind a quick event of the page: answered at once, no spinner, no public endpoint."""
    quick = {"queue": False, "show_progress": "hidden", "api_visibility": "private"} | settings
    return listener(call, inputs, outputs, **quick)


def remember(listener: Callable[..., Any], names: Sequence[str], inputs: Sequence[Any], tab: str) -> Any:  # noqa: ANN401
    """Write the chosen values into the address, in the browser, so that the link shows the same."""
    pairs = ", ".join([f"tab: '{tab}'", *(f"{name}: v{place}" for place, name in enumerate(names))])
    values = ", ".join(f"v{place}" for place in range(len(names)))
    return listener(
        None, list(inputs), None, js=f"({values}) => window.medllm.remember({{ {pairs} }})", api_visibility="private"
    )


def anything(options: Sequence[str]) -> list[tuple[Any, str]]:
    """Return the options of a filter, after "all"; categories of the miniature in the reader's language."""
    named = {option: f"both_{option.replace('/', '_')}" for option in options}
    shown = ((I18N(key) if key in LABELS else option, option) for option, key in named.items())
    return [(I18N("all"), ""), *shown]
