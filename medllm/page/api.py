"""The public functions of the page, typed, for programs: a question, its comparison, the scores, the flips."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import gradio as gr

from medllm.page.context import PageContext
from medllm.page.scores import score_lines
from medllm.page.selection import OUTCOMES, Filter, Wanted, options

Function = Callable[..., Any]

LONGEST = 200
"""Characters of an argument; keys, names and years are far shorter."""


def functions(page: PageContext) -> dict[str, Function]:
    """Return the functions by the name under which gradio_client calls them."""
    results = page.results

    def question(q: str) -> dict[str, Any]:
        """Return one question by its key (EXAM/ID) or id: text, choices, key and metadata; empty if there is none."""
        key = results.find(_text("q", q))
        if key is None:
            return {}
        found = results.question(key)
        fields = {
            name: getattr(found, name) for name in ("question_id", "benchmark", "text", "choices", "year", "section")
        }
        return fields | {"choices": list(found.choices), "answer": found.gold_answer, "points": found.points}

    def comparison(q: str) -> list[dict[str, Any]]:
        """Return every model's reply to one question under both prompts, with its verdict."""
        key = results.find(_text("q", q))
        return [] if key is None else [asdict(record) for record in results.replies(key).values()]

    def scores(exam: str = "", year: str = "", section: str = "", category: str = "") -> list[dict[str, Any]]:
        """Return every model's accuracy, plain and explained, with 95 % intervals, the paired change and its counts."""
        mask = _narrow(page, exam=exam, year=year, section=section, category=category).mask(results)
        rows = [row.to_json() for row in score_lines(results, mask, "accuracy")]
        return [{name: value for name, value in row.items() if name != "exam"} for row in rows]

    def flips(model: str, outcome: str = "lost", exam: str = "", year: str = "") -> list[str]:
        """Return the keys of the questions with this outcome for a model: lost, gained, kept, never, plain_right ..."""
        asked = {"model": _one_of("model", model, results.models), "outcome": _one_of("outcome", outcome, OUTCOMES)}
        narrow = _narrow(page, exam=exam, year=year)
        return Wanted.read(asked | {"exam": narrow.exam, "year": narrow.year}, results).keys(results)

    return {"question": question, "comparison": comparison, "scores": scores, "flips": flips}


def _narrow(page: PageContext, **asked: object) -> Filter:
    """Build a filter by values that exist; an empty text means all."""
    fields = {"exam": "benchmark"}
    found = {
        name: "" if value == "" else _one_of(name, value, options(page.results, fields.get(name, name)))
        for name, value in asked.items()
    }
    return Filter(found["exam"], found["year"], found.get("section", ""), found.get("category", ""))


def _one_of(name: str, value: object, offered: Sequence[str]) -> str:
    text = _text(name, value)
    if text not in offered:
        shown = ", ".join(list(offered)[:20]) + (", ..." if len(offered) > 20 else "")
        raise _fault(f"{name}: there is no `{text}`. There is: {shown or 'none'}.")
    return text


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise _fault(f"{name}: text is wanted, in quotation marks; this is {_kind(value)}.")
    if len(value) > LONGEST:
        raise _fault(f"{name}: at most {LONGEST} letters; {len(value):,} came.")
    return value


def _kind(value: object) -> str:
    kinds = {"NoneType": "null", "bool": "true or false", "int": "a number", "float": "a number", "list": "a list"}
    return kinds.get(type(value).__name__, "an object")


def _fault(text: str) -> gr.Error:
    """Return an error for the caller; it is expected, so no traceback is logged."""
    return gr.Error(text, print_exception=False)
