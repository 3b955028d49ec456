"""Ask: a reader's own question to all live models; nothing is stored, and a warning lists what not to write."""

from collections.abc import AsyncIterator

import gradio as gr

from medllm.exam.question import LETTERS, Question, own_question
from medllm.page.context import PageContext
from medllm.page.error_page import notice
from medllm.page.grid import TEMPLATE, grid_value
from medllm.page.html import both
from medllm.page.tabs.components import I18N, Stops, block, described_by, on

LONGEST_QUESTION = 4000
LONGEST_CHOICE = 300


def draw(page: PageContext, stops: Stops) -> None:
    """Draw the tab; in recorded mode it explains how to switch on live mode."""
    live = page.live
    if live is None:
        block(f'<section class="card panel"><h2>{both("ask")}</h2><p>{both("ask_off")}</p></section>')
        return
    block(f'<p class="card panel" role="note">{both("privacy")}</p>')
    text = gr.Textbox(label=I18N("own_question"), lines=5, max_length=LONGEST_QUESTION, elem_id="own")
    choices = gr.Textbox(label=I18N("own_choices"), lines=3, max_length=len(LETTERS) * LONGEST_CHOICE)
    with gr.Row(elem_classes="controls"):
        go = gr.Button(I18N("generate"), variant="primary", elem_id="ask-go")
        halt = gr.Button(I18N("stop"), elem_id="ask-stop")
    remark = block()
    grid = block(grid_value({}, key=None, models=live.models, notes={}), html_template=TEMPLATE, elem_id="own-grid")

    async def answer(asked: str, listed: str, request: gr.Request) -> AsyncIterator[tuple[object, str]]:
        if not asked.strip():
            yield gr.skip(), notice("nothing_asked")
            return
        put = live.start_round(free_question(asked, listed))
        with stops.of(request) as stop, put:
            async for cells in described_by(live, put, stop):
                yield grid_value(cells, key=None, models=live.models, notes={}), ""

    on(go.click, answer, [text, choices], [grid, remark], queue=True, concurrency_limit=64)
    on(halt.click, stops.end)


def free_question(asked: str, listed: str) -> Question:
    r"""Build a question without a key, within the page's limits.

    >>> free_question("どれか。", "肺炎\n\n肺癌").choices
    ('肺炎', '肺癌')
    """
    lines = [line.strip()[:LONGEST_CHOICE] for line in (listed or "").splitlines() if line.strip()]
    choices = tuple(lines[: len(LETTERS)])
    return own_question(asked.strip()[:LONGEST_QUESTION], choices)
