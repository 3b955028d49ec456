"""The filter row that Scores and Flips share: exam, year, section, category, text-only."""

from typing import Any

import gradio as gr

from medllm.page.filters import Filter, options
from medllm.page.results import RecordedResults
from medllm.page.tabs.components import I18N, anything

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
