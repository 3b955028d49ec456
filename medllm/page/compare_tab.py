"""Compare and Ask: a recorded question, or one of the reader's own, with every model's verdicts and replies."""

from asyncio import Event
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, quote

import gradio as gr

from medllm.errors import MedllmError
from medllm.exam.question import LETTERS, Question, own_question
from medllm.exam.record import PROMPTS, PromptStyle, Record
from medllm.page.components import I18N, Stops, block, described_by, on
from medllm.page.context import PageContext, Shelf
from medllm.page.grid import MANY, TEMPLATE, Cells, grid_value
from medllm.page.html import both, notice, question_card, safe
from medllm.page.live import Live, LiveAnswers
from medllm.page.selection import Wanted
from medllm.side_by_side import Column

REMEMBER = "(key, walk) => window.medllm.remember({ q: key, walk: walk ? 1 : '' })"
AGAIN = """element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-again]');
  if (button) trigger('again', { ...button.dataset });
})"""
LIST = """element.addEventListener('click', (event) => {
  if (event.target.closest('[data-list]')) trigger('list', {});
})"""


@dataclass(frozen=True)
class Compare:
    """The parts of the tab that other code sets: a question opened from Flips, a link restored at load."""

    key: gr.Textbox
    walk: gr.Textbox
    """The list that is walked, as a part of an address; empty: all questions."""
    place: gr.HTML
    notice: gr.HTML
    grid: gr.HTML
    links: gr.HTML
    shown: tuple[Any, ...]
    page: PageContext
    answers: tuple[Any, ...] = ()
    """The event that writes live answers; whatever changes the question cancels it."""
    stops: Stops | None = None

    def settle(self, listener: Any, moved: Any) -> None:  # noqa: ANN401  (events of gradio's)
        """End the answers to the question before, and show the new cells once more: a late piece may have come."""
        if self.stops is not None:
            on(listener, self.stops.end)
            on(moved.then, lambda key: (shown_grid(self.page, key), tools(key)), [self.key], [self.grid, self.links])

    def show(self, key: str, walk: str = "") -> list[Any]:
        """Return every value that changes with the question, in the order of `shown`."""
        keys = walked(self.page, walk)
        if key not in keys:
            walk, keys = "", walked(self.page, "")
        shelf = self.page.shelf
        place = shelf.of(key)
        years, sections = shelf.years(place.exam), shelf.sections(place.exam, place.year)
        numbers = shelf.numbers(place.exam, place.year, place.section)
        return [
            key,
            walk,
            described_place(self.page, key, walk, keys),
            place.exam,
            gr.Dropdown(choices=years, value=place.year),
            gr.Dropdown(choices=sections, value=place.section),
            gr.Dropdown(choices=numbers, value=key),
            shown_card(self.page, key),
            shown_grid(self.page, key),
            tools(key),
        ]


def shown_card(page: PageContext, key: str) -> str:
    """Return the card of a question with the models that chose each answer."""
    shown = picks(page.results.replies(key))
    return question_card(key, page.results.question(key), shown, many=len(page.results.models) > MANY)


def picks(replies: Mapping[tuple[str, PromptStyle], Record]) -> dict[str, str]:
    """Return for each letter which models chose it, under each prompt, as HTML."""
    by_letter: dict[str, dict[PromptStyle, list[str]]] = {}
    for (model, prompt), record in replies.items():
        for letter in filter(None, (record.answer or "").split(",")):
            by_letter.setdefault(letter, {}).setdefault(prompt, []).append(model)
    return {
        letter: "".join(
            f'<small class="picks"><i class="{prompt}"></i><span class="by">{both(prompt)}: </span>'
            f'<b>{len(by_prompt[prompt])}</b><span class="who">{safe(", ".join(by_prompt[prompt]))}</span></small>'
            for prompt in PROMPTS
            if prompt in by_prompt
        )
        for letter, by_prompt in by_letter.items()
    }


def shown_grid(
    page: PageContext, key: str, recorded: Cells | None = None, now: LiveAnswers | None = None
) -> dict[str, object]:
    """Return the recorded cells of a question as the grid's value, with live answers beside them."""
    recorded = page.results.replies(key) if recorded is None else recorded
    held = page.results.shown
    return grid_value(recorded, key=key, models=page.results.models, notes=page.notes(), now=now, held=held)


def walked(page: PageContext, walk: str) -> list[str]:
    """Return the keys of the list that is walked: all questions, or those of a list of Flips."""
    if not walk:
        return [place.key for place in page.shelf.places]
    return Wanted.read(dict(parse_qsl(walk)), page.results).keys(page.results)


def described_place(page: PageContext, key: str, walk: str, keys: Sequence[str]) -> str:
    """Return where a question is in the list that is walked: its number, the list, and the way back to it."""
    replies = page.results.replies(key).values()
    right = sum(bool(record.correct) for record in replies)
    name = safe(page.results.question(key).question_id)
    spoken = f'<span class="sr">{name}: {both("right")} {right} / {len(replies)}</span>'
    number = f"{spoken}<b>{keys.index(key) + 1:,}</b> / {len(keys):,}"
    lists = f'<button type="button" class="linkish" data-switch="lists" aria-expanded="false">{both("lists")}</button>'
    if not walk:
        return f'<p class="place">{number} {lists}</p>'
    wanted = Wanted.read(dict(parse_qsl(walk)), page.results)
    back = f'<button type="button" class="linkish" data-list>{both("back_to_list")}</button>'
    return f'<p class="place">{safe(wanted.model)}: {both(f"{wanted.outcome}_long")} · {number} {back}{lists}</p>'


def step(page: PageContext, key: str, walk: str, by: int) -> str:
    """Return the question before or after in the list that is walked, wrapping at its ends."""
    keys = walked(page, walk)
    return keys[(keys.index(key) + by) % len(keys)] if key in keys else page.shelf.beside(key, by)


def tools(key: str, answers: str = "") -> str:
    """Return the buttons that copy the link and save the comparison, with the live answers of this name."""
    source = f"medllm/comparison.md?q={quote(key, safe='')}{f'&live={answers}' if answers else ''}"
    return (
        f'<div class="tools"><button type="button" data-link>{both("copy_link")}</button>'
        f'<a href="{safe(source)}" download>{both("export")}</a></div>'
    )


def draw(page: PageContext, stops: Stops) -> Compare:
    """Draw the tab and bind its events."""
    first = page.shelf.opening
    with gr.Row(elem_classes="controls slim"):
        lists = _lists(page.shelf)
        names = ("previous", "next", "random", "flipped")
        buttons = {
            name: gr.Button(I18N(name), min_width=64, size="sm", scale=0, elem_id=f"go-{name}") for name in names
        }
        live = page.live is not None
        go = gr.Button(
            I18N("generate"), variant="primary", min_width=64, size="sm", scale=0, visible=live, elem_id="go"
        )
        halt = gr.Button(I18N("stop"), min_width=64, size="sm", scale=0, visible=live, elem_id="stop")
        shown = described_place(page, first.key, "", walked(page, ""))
        place = block(shown, elem_id="place", js_on_load=LIST)
    remark = block()
    with gr.Row(elem_classes="reading"):
        with gr.Column(scale=2, min_width=300, elem_classes="asked-pane"):
            card = block(shown_card(page, first.key), elem_id="card")
        with gr.Column(scale=5, min_width=320):
            grid = block(shown_grid(page, first.key), html_template=TEMPLATE, elem_id="grid", js_on_load=AGAIN)
            links = block(tools(first.key))
    key, walk = gr.Textbox(first.key, visible=False), gr.Textbox("", visible=False)
    compare = Compare(key, walk, place, remark, grid, links, (key, walk, place, *lists, card, grid, links), page)
    if page.live is not None:
        compare = replace(compare, answers=_bind_live(page, compare, go, halt, stops), stops=stops)
    _bind_choosing(compare, lists, buttons)
    return compare


def _lists(shelf: Shelf) -> list[gr.Dropdown]:
    """Draw the lists of exam, year, section and question."""
    first = shelf.opening
    choices: tuple[tuple[str, Any, str], ...] = (
        ("exam", shelf.exams(), first.exam),
        ("year", shelf.years(first.exam), first.year),
        ("section", shelf.sections(first.exam, first.year), first.section),
        ("which", shelf.numbers(first.exam, first.year, first.section), first.key),
    )
    return [gr.Dropdown(offered, value=value, label=I18N(name), min_width=96) for name, offered, value in choices]


def _bind_choosing(compare: Compare, lists: list[gr.Dropdown], buttons: dict[str, gr.Button]) -> None:
    """Bind every control that leads to another question; each writes the question into the address."""
    results, shelf = compare.page.results, compare.page.shelf
    exam, year, section, which = lists
    flipped = results.flipped or results.keys
    ways: tuple[tuple[Any, Any, list[Any]], ...] = (
        (exam.input, shelf.first, [exam]),
        (year.input, shelf.first, [exam, year]),
        (section.input, shelf.first, [exam, year, section]),
        (which.input, lambda chosen: chosen, [which]),
        (buttons["random"].click, lambda at: shelf.another(at, results.keys), [compare.key]),
        (buttons["flipped"].click, lambda at: shelf.another(at, flipped), [compare.key]),
    )

    def shows(choose: Any) -> Any:  # noqa: ANN401  (a function from the controls to a key)
        return lambda *controls: find(compare, choose(*controls))

    def steps(by: int) -> Any:  # noqa: ANN401  (a function from the controls to the view)
        return lambda at, walk: find(compare, step(compare.page, at, walk, by), walk)

    for name, by in (("previous", -1), ("next", 1)):
        moved = on(
            buttons[name].click,
            steps(by),
            [compare.key, compare.walk],
            [*compare.shown, compare.notice],
            cancels=list(compare.answers),
        )
        compare.settle(buttons[name].click, moved)
        on(moved.then, None, [compare.key, compare.walk], None, js=REMEMBER)
    for listener, choose, controls in ways:
        moved = on(listener, shows(choose), controls, [*compare.shown, compare.notice], cancels=list(compare.answers))
        compare.settle(listener, moved)
        on(moved.then, None, [compare.key, compare.walk], None, js=REMEMBER)


Shown = Callable[[LiveAnswers], object]
"""Makes the grid's value of live answers."""


async def asked_once_more(
    page: PageContext, given: LiveAnswers, column: Column, stop: Event
) -> AsyncIterator[LiveAnswers]:
    """Yield live answers while one of their cells is asked again; the others stay as they are."""
    live = page.live
    assert live is not None
    given = replace(given, later={**given.later, column: datetime.now(UTC)})
    with live.start_round(given.question or page.results.question(given.key), only=column) as put:
        async for cells in described_by(live, put, stop):
            yield page.answers.keep(given.having(cells))


def _bind_again(page: PageContext, grid: gr.HTML, key: gr.Textbox | None, shown: Shown, stops: Stops) -> Any:  # noqa: ANN401
    """Bind the buttons that ask one cell again; return the event, which another question cancels."""

    async def again(chosen: str, event: gr.EventData, request: gr.Request) -> AsyncIterator[object]:
        given = page.answers.of(str(getattr(event, "live", "")), chosen)
        prompt, _, model = str(getattr(event, "again", "")).partition(" ")
        column = next((each for each in given.cells if each == (model, prompt)), None) if given else None
        if given is None or column is None:  # another question is shown, or a later round has pushed this one out
            yield gr.skip()
            return
        with stops.of(request) as stop:
            async for answers in asked_once_more(page, given, column, stop):
                yield shown(answers)

    async def own(event: gr.EventData, request: gr.Request) -> AsyncIterator[object]:
        async for value in again("", event, request):
            yield value

    call, inputs = (own, None) if key is None else (again, [key])
    return on(grid.again, call, inputs, grid, queue=True, concurrency_limit=64)


def _bind_live(page: PageContext, compare: Compare, go: gr.Button, halt: gr.Button, stops: Stops) -> tuple[Any, ...]:
    """Bind the buttons of live answers; return the events that write them."""
    live = page.live
    assert live is not None

    async def answer(chosen: str, request: gr.Request) -> AsyncIterator[tuple[object, object]]:
        key = page.results.find(chosen) or page.shelf.opening.key
        recorded, first = page.results.replies(key), True
        given = LiveAnswers(key, live.name, named(live), {})
        with stops.of(request) as stop, live.start_round(page.results.question(key)) as put:
            async for cells in described_by(live, put, stop):
                given = page.answers.keep(given.having(cells))
                yield shown_grid(page, key, recorded, given), tools(key, given.name) if first else gr.skip()
                first = False

    answers = on(go.click, answer, [compare.key], [compare.grid, compare.links], queue=True, concurrency_limit=64)
    on(halt.click, stops.end)
    again = _bind_again(page, compare.grid, compare.key, lambda now: shown_grid(page, now.key, None, now), stops)
    return answers, again


def named(live: Live) -> dict[str, str]:
    """Return the server's name of each model."""
    return {model: known for model, (_, known) in live.generators.items()}


def find(compare: Compare, wanted: str | None, walk: str = "") -> list[Any]:
    """Return the view for a link: the linked question, or a remark that it does not exist."""
    key = compare.page.results.find(wanted)
    if key is not None:
        return [*compare.show(key, walk), compare.page.staleness()]
    first = compare.page.shelf.opening.key
    return [*compare.show(first), notice("fault_no_question", wanted=(wanted or "")[:80])]


LONGEST_QUESTION = 4000
LONGEST_CHOICE = 300


def draw_ask(page: PageContext, stops: Stops) -> None:
    """Draw the tab; in recorded mode it explains how to switch on live mode."""
    live = page.live
    if live is None:
        block(f'<section class="card panel"><h2>{both("ask")}</h2><p>{both("ask_off")}</p></section>')
        return
    block(f'<p class="card panel" role="note">{both("privacy")} {both("cut_after", n=live.max_new_tokens)}</p>')
    text = gr.Textbox(label=I18N("own_question"), lines=5, max_length=LONGEST_QUESTION, elem_id="own")
    choices = gr.Textbox(
        label=I18N("own_choices"), lines=3, max_length=len(LETTERS) * LONGEST_CHOICE, elem_id="own-choices"
    )
    with gr.Row(elem_classes="controls"):
        go = gr.Button(I18N("generate"), variant="primary", elem_id="ask-go")
        halt = gr.Button(I18N("stop"), elem_id="ask-stop")
    remark = block()
    empty = grid_value({}, key=None, models=(), notes={})
    grid = block(empty, html_template=TEMPLATE, elem_id="own-grid", js_on_load=AGAIN)
    links = block()

    def shown(given: LiveAnswers) -> dict[str, object]:
        return grid_value({}, key=None, models=live.models, notes={}, now=given)

    async def answer(asked: str, listed: str, request: gr.Request) -> AsyncIterator[tuple[object, object, object]]:
        if not asked.strip():
            yield gr.skip(), notice("nothing_asked"), gr.skip()
            return
        question, first = free_question(asked, listed), True
        try:
            put = live.start_round(question)
        except MedllmError as fault:
            yield gr.skip(), notice("fault_asked", detail=str(fault)), gr.skip()
            return
        more = sum(bool(line.strip()) for line in listed.splitlines()) - len(LETTERS)
        note = notice("choices_dropped", n=len(LETTERS)) if more > 0 else ""
        given = LiveAnswers("", live.name, named(live), {}, question=question)
        with stops.of(request) as stop, put:
            async for cells in described_by(live, put, stop):
                given = page.answers.keep(given.having(cells))
                yield shown(given), note, own_tools(given.name) if first else gr.skip()
                first = False

    on(go.click, answer, [text, choices], [grid, remark, links], queue=True, concurrency_limit=64)
    on(halt.click, stops.end)
    _bind_again(page, grid, None, shown, stops)


def own_tools(answers: str) -> str:
    """Return the buttons below the answers to a reader's own question: copy, save, and a link that asks it again."""
    return (
        f'<div class="tools"><button type="button" data-copy="own">{both("copy_answers")}</button>'
        f'<a href="medllm/comparison.md?live={safe(answers)}" download>{both("export")}</a>'
        f'<button type="button" data-own-link aria-describedby="own-link-how">{both("copy_link")}</button>'
        f'<small class="quiet" id="own-link-how">{both("own_link")}</small></div>'
    )


def free_question(asked: str, listed: str) -> Question:
    r"""Build a question without a key, within the page's limits.

    >>> free_question("どれか。", "肺炎\n\n肺癌").choices
    ('肺炎', '肺癌')
    """
    lines = [line.strip()[:LONGEST_CHOICE] for line in (listed or "").splitlines() if line.strip()]
    choices = tuple(lines[: len(LETTERS)])
    return own_question(asked.strip()[:LONGEST_QUESTION], choices)
