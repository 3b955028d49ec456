"""Scores and Flips: their filter row, the figures, and the list of questions by model and outcome behind a number."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from medllm.page.components import I18N, anything, block, on, remember
from medllm.page.context import PageContext
from medllm.page.results import RecordedResults
from medllm.page.scores import scores
from medllm.page.selection import PAGE, SORTS, Filter, Wanted, default_outcome, options, outcomes, rows

NAMES = ("exam", "year", "section", "category", "text")
"""The names of the filters in an address, in the order of their controls."""


def draw_filters(results: RecordedResults) -> list[Any]:
    """Draw the five controls that choose questions."""
    fields = (("exam", "benchmark"), ("year", "year"), ("section", "section"), ("category", "category"))
    controls: list[Any] = [
        gr.Dropdown(anything(options(results, field)), value="", label=I18N(name), min_width=110)
        for name, field in fields
    ]
    return [*controls, gr.Checkbox(False, label=I18N("text_only"), min_width=150)]


def read_filters(exam: str, year: str, section: str, category: str, text_only: bool) -> Filter:
    """Return the filter that the controls describe."""
    return Filter(exam or "", year or "", section or "", category or "", bool(text_only))


def set_filters(narrow: Filter) -> list[Any]:
    """Return the controls' values for a filter, as a link restores them."""
    return [narrow.exam, narrow.year, narrow.section, narrow.category, narrow.text_only]


OPEN = """element.addEventListener('click', (event) => {
  const number = event.target.closest('[data-outcome]');
  if (number) trigger('open', { ...number.dataset });
})"""


@dataclass(frozen=True)
class ScoresTab:
    """The parts that other code uses: the filters, and the figures whose numbers open Flips."""

    controls: list[Any]
    figures: gr.HTML
    page: PageContext

    def show(self, *chosen: Any) -> str:  # noqa: ANN401  (values of gradio's controls)
        """Return the figures for the chosen filters and measure."""
        *filters, measure = chosen
        figures = scores(self.page.results, read_filters(*filters), "points" if measure == "points" else "accuracy")
        return self.page.staleness() + figures


def draw(page: PageContext) -> ScoresTab:
    """Draw the tab; the figures load when it opens, since they would be a fifth of all data sent with the page."""
    with gr.Row(elem_classes="controls"):
        controls = draw_filters(page.results)
        measures = [(I18N("accuracy_measure"), "accuracy"), (I18N("points_measure"), "points")]
        controls.append(
            gr.Dropdown(measures, value="accuracy", label=I18N("measure"), min_width=150, elem_classes="wide")
        )
    figures = block(elem_id="figures", js_on_load=OPEN)
    tab = ScoresTab(controls, figures, page)
    for control in controls:
        changed = on(control.input, tab.show, controls, figures)
        remember(changed.then, [*NAMES, "measure"], controls, tab="scores")
    return tab


PICK = """element.addEventListener('click', (event) => {
  const row = event.target.closest('[data-key]');
  if (row) trigger('pick', { key: decodeURIComponent(row.dataset.key) });
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
        return self.page.staleness() + rows(self.page.results, self.wanted(*chosen), PAGE), PAGE

    def more(self, *chosen: Any) -> tuple[str, int]:  # noqa: ANN401  (values of gradio's controls)
        """Return the list with more rows; the last value is the number of rows shown."""
        *controls, shown = chosen
        return rows(self.page.results, self.wanted(*controls), shown + PAGE), shown + PAGE

    def wanted(self, model: str, outcome: Any, sort: Any, *others: Any) -> Wanted:  # noqa: ANN401
        """Return the selection that the controls describe; the last value is the search."""
        *filters, text = others
        return Wanted(model, outcome, read_filters(*filters), text or "", sort)

    def opened(self, wanted: Wanted) -> list[Any]:
        """Return controls and list set to a selection, as a number or a link asks."""
        chosen = [wanted.model, wanted.outcome, wanted.sort, *set_filters(wanted.narrow), wanted.text]
        return [*chosen, *self.show(*chosen)]

    def remember(self, listener: Any, tab: str = "flips") -> None:  # noqa: ANN401  (an event of gradio's)
        """Write the chosen values into the address."""
        remember(listener, ["model", "outcome", "sort", *NAMES, "find"], self.controls, tab=tab)


def draw_flips(page: PageContext) -> Flips:
    """Draw the tab of changed answers."""
    results = page.results
    with gr.Row(elem_classes="controls"):
        model = gr.Dropdown(list(results.models), value=results.models[0], label=I18N("model"), min_width=110)
        offered = [(I18N(f"{name}_long"), name) for name in outcomes(results)]
        first = default_outcome(results)
        outcome = gr.Dropdown(offered, value=first, label=I18N("outcome"), elem_classes="wide", min_width=240)
        text = gr.Textbox(label=I18N("find"), max_length=200, min_width=160)
    with gr.Row(elem_classes="controls"):
        orders = [(I18N(f"sort_{name or 'exam'}"), name) for name in SORTS]
        sort = gr.Dropdown(orders, value="", label=I18N("sort"), min_width=150)
        # The search comes last: its change is noticed while an address is restored, when all others are set.
        controls = [model, outcome, sort, *draw_filters(results), text]
    shown = gr.State(PAGE)
    listed = block(rows(results, Wanted(results.models[0], first, Filter()), PAGE), elem_id="list", js_on_load=PICK)
    more = gr.Button(I18N("more"), elem_id="more")
    tab = Flips(controls, listed, shown, page)
    for control in controls:
        happened = control.change if control is text else control.input
        changed = on(happened, tab.show, controls, [listed, shown], trigger_mode="always_last")
        tab.remember(changed.then)
    on(more.click, tab.more, [*controls, shown], [listed, shown])
    return tab
