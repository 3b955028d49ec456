"""Scores: the filters, the figures below them, and the way from a number to its questions."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from medllm.page.context import PageContext
from medllm.page.scores import scores
from medllm.page.tabs.components import I18N, block, on, remember
from medllm.page.tabs.filters import NAMES, draw_filters, read_filters

OPEN = """element.addEventListener('click', (event) => {
  const number = event.target.closest('[data-outcome]');
  if (number) trigger('open', { ...number.dataset });
})"""


@dataclass(frozen=True)
class Scores:
    """The parts that other code uses: the filters, and the figures whose numbers open Flips."""

    controls: list[Any]
    figures: gr.HTML
    page: PageContext

    def show(self, *chosen: Any) -> str:  # noqa: ANN401  (values of gradio's controls)
        """Return the figures for the chosen filters and measure."""
        *filters, measure = chosen
        return scores(self.page.results, read_filters(*filters), "points" if measure == "points" else "accuracy")


def draw(page: PageContext) -> Scores:
    """Draw the tab; the figures load when it opens, since they would be a fifth of all data sent with the page."""
    with gr.Row(elem_classes="controls"):
        controls = draw_filters(page.results)
        measures = [(I18N("accuracy_measure"), "accuracy"), (I18N("points_measure"), "points")]
        controls.append(
            gr.Dropdown(measures, value="accuracy", label=I18N("measure"), min_width=150, elem_classes="wide")
        )
    figures = block(elem_id="figures", js_on_load=OPEN)
    tab = Scores(controls, figures, page)
    for control in controls:
        changed = on(control.input, tab.show, controls, figures)
        remember(changed.then, [*NAMES, "measure"], controls, tab="scores")
    return tab
