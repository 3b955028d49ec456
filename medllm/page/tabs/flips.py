"""Flips: a list of questions by model and outcome; a row opens Compare, the list can be saved as a file."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from medllm.page.context import PageContext
from medllm.page.filters import OUTCOMES, Filter
from medllm.page.flips import PAGE, Wanted, rows
from medllm.page.tabs.components import I18N, block, on, remember
from medllm.page.tabs.filters import NAMES, draw_filters, read_filters, set_filters

PICK = """element.addEventListener('click', (event) => {
  const row = event.target.closest('[data-key]');
  if (row) trigger('pick', { key: row.dataset.key });
})"""


@dataclass(frozen=True)
class Flips:
    """The parts that other code uses: the controls, and the list."""

    controls: list[Any]
    listed: gr.HTML
    shown: gr.State
    page: PageContext

    def show(self, *chosen: Any) -> tuple[str, int]:  # noqa: ANN401  (values of gradio's controls)
        """Return the list for the chosen values, from its beginning."""
        return rows(self.page.results, self.wanted(*chosen), PAGE), PAGE

    def more(self, *chosen: Any) -> tuple[str, int]:  # noqa: ANN401  (values of gradio's controls)
        """Return the list with more rows; the last value is the number of rows shown."""
        *controls, shown = chosen
        return rows(self.page.results, self.wanted(*controls), shown + PAGE), shown + PAGE

    def wanted(self, model: str, outcome: Any, text: str, *filters: Any) -> Wanted:  # noqa: ANN401
        """Return the selection that the controls describe."""
        return Wanted(model, outcome, read_filters(*filters), text or "")

    def opened(self, wanted: Wanted) -> list[Any]:
        """Return controls and list set to a selection, as a number or a link asks."""
        chosen = [wanted.model, wanted.outcome, wanted.text, *set_filters(wanted.narrow)]
        return [*chosen, *self.show(*chosen)]

    def remember(self, listener: Any, tab: str = "flips") -> None:  # noqa: ANN401  (an event of gradio's)
        """Write the chosen values into the address."""
        remember(listener, ["model", "outcome", "find", *NAMES], self.controls, tab=tab)


def draw(page: PageContext) -> Flips:
    """Draw the tab of changed answers."""
    results = page.results
    with gr.Row(elem_classes="controls"):
        model = gr.Dropdown(list(results.models), value=results.models[0], label=I18N("model"), min_width=110)
        outcomes = [(I18N(f"{name}_long"), name) for name in OUTCOMES]
        outcome = gr.Dropdown(outcomes, value="lost", label=I18N("outcome"), elem_classes="wide", min_width=240)
        text = gr.Textbox(label=I18N("find"), max_length=200, min_width=160)
    with gr.Row(elem_classes="controls"):
        controls = [model, outcome, text, *draw_filters(results)]
    shown = gr.State(PAGE)
    listed = block(rows(results, Wanted(results.models[0], "lost", Filter()), PAGE), elem_id="list", js_on_load=PICK)
    more = gr.Button(I18N("more"), elem_id="more")
    tab = Flips(controls, listed, shown, page)
    for control in controls:
        happened = control.submit if control is text else control.input
        changed = on(happened, tab.show, controls, [listed, shown])
        tab.remember(changed.then)
    on(more.click, tab.more, [*controls, shown], [listed, shown])
    return tab
