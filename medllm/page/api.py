"""The public functions of the page, typed, for programs: a question, its comparison, the scores, the flips."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from medllm.page.context import Page
from medllm.page.flips import Wanted
from medllm.page.narrow import Filter
from medllm.page.tally import tally

Function = Callable[..., Any]


def functions(page: Page) -> dict[str, Function]:
    """The functions by the name under which gradio_client calls them."""
    results = page.results

    def question(q: str) -> dict[str, Any]:
        """One question by its key (EXAM/ID) or id: text, choices, key and metadata; empty when there is none."""
        key = results.find(q)
        if key is None:
            return {}
        found = results.question(key)
        told = {
            name: getattr(found, name) for name in ("question_id", "benchmark", "text", "choices", "year", "section")
        }
        return told | {"choices": list(found.choices), "answer": found.gold_answer, "points": found.points}

    def comparison(q: str) -> list[dict[str, Any]]:
        """Every model's reply to one question under both prompts, with its verdict."""
        key = results.find(q)
        return [] if key is None else [asdict(record) for record in results.replies(key).values()]

    def scores(exam: str = "", year: str = "", section: str = "", category: str = "") -> list[dict[str, Any]]:
        """Accuracy of every model plainly and explained with 95 % intervals, the paired change, and its counts."""
        mask = Filter(exam, year, section, category).mask(results)
        return [asdict(line) for line in tally(results, mask, "accuracy")]

    def flips(model: str, outcome: str = "lost", exam: str = "", year: str = "") -> list[str]:
        """The keys of the questions on which a model did this: lost, gained, kept, never, plain_right, ..."""
        asked = {"model": model, "outcome": outcome, "exam": exam, "year": year}
        return Wanted.read(asked, results).keys(results)

    return {"question": question, "comparison": comparison, "scores": scores, "flips": flips}
