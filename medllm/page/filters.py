"""Selection of questions: a filter by exam, year, section, category and image, and an outcome of one model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from medllm.page.results import Column, RecordedResults

Mask = npt.NDArray[np.bool_]
Outcome = Literal[
    "lost", "gained", "kept", "never",
    "plain_right", "plain_wrong", "plain_unparsed",
    "explain_right", "explain_wrong", "explain_unparsed", "asked",
]  # fmt: skip
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


@dataclass(frozen=True)
class Filter:
    """The selected exam, year, section and category; an empty string means all."""

    exam: str = ""
    year: str = ""
    section: str = ""
    category: str = ""
    text_only: bool = False
    """Leave out questions that need a picture."""

    def mask(self, results: RecordedResults) -> Mask:
        """Return the questions that pass, by place."""
        passed = np.ones(len(results.questions), dtype=np.bool_)
        for name, wanted in (
            ("benchmark", self.exam),
            ("year", self.year),
            ("section", self.section),
            ("category", self.category),
        ):
            if wanted:
                passed &= labels(results, name) == wanted
        return passed & ~images(results) if self.text_only else passed


def labels(results: RecordedResults, field: str) -> npt.NDArray[np.str_]:
    """Return a field of all questions as text, empty where there is none."""
    return results.remembered(
        f"labels {field}", lambda: np.asarray([_text(getattr(q, field)) for q in results.questions])
    )


def images(results: RecordedResults) -> Mask:
    """Return which questions need a picture."""
    return results.remembered(
        "images", lambda: np.asarray([question.image for question in results.questions], dtype=np.bool_)
    )


def points(results: RecordedResults) -> npt.NDArray[np.float64]:
    """Return the points of each question."""
    return results.remembered(
        "points", lambda: np.asarray([question.points for question in results.questions], dtype=np.float64)
    )


def clusters(results: RecordedResults) -> npt.NDArray[np.int64]:
    """Return a number for each question; questions of one vignette share a number."""

    def number() -> npt.NDArray[np.int64]:
        names = [
            f"{question.benchmark}/{question.vignette_id}" if question.vignette_id else f"\0{place}"
            for place, question in enumerate(results.questions)
        ]
        return np.unique(np.asarray(names), return_inverse=True)[1].astype(np.int64)

    return results.remembered("clusters", number)


def sittings(results: RecordedResults) -> npt.NDArray[np.int64]:
    """Return a number for each question; questions of one exam and year share a number."""
    names = np.char.add(np.char.add(labels(results, "benchmark"), "\0"), labels(results, "year"))
    return results.remembered("sittings", lambda: np.unique(names, return_inverse=True)[1].astype(np.int64))


def options(results: RecordedResults, field: str) -> list[str]:
    """Return the values of a field, in order."""
    return sorted(set(labels(results, field).tolist()) - {""})


def outcome(results: RecordedResults, model: str, wanted: Outcome) -> Mask:
    """Return the questions on which a model had this outcome; questions it was not asked never count."""
    plain: Column = (model, "plain")
    explained: Column = (model, "explain")
    right, there, lost = results.right, results.there, results.unanswered
    twice = there[plain] & there[explained]
    found: dict[Outcome, Callable[[], Mask]] = {
        "lost": lambda: twice & right[plain] & ~right[explained],
        "gained": lambda: twice & ~right[plain] & right[explained],
        "kept": lambda: twice & right[plain] & right[explained],
        "never": lambda: twice & ~right[plain] & ~right[explained],
        "plain_right": lambda: right[plain],
        "plain_wrong": lambda: there[plain] & ~right[plain] & ~lost[plain],
        "plain_unparsed": lambda: lost[plain],
        "explain_right": lambda: right[explained],
        "explain_wrong": lambda: there[explained] & ~right[explained] & ~lost[explained],
        "explain_unparsed": lambda: lost[explained],
        "asked": lambda: there[plain] | there[explained],
    }
    return found[wanted]()


def containing(results: RecordedResults, text: str) -> Mask:
    """Return the questions whose id or text contains these words."""
    sought = text.strip().casefold()
    if not sought:
        return np.ones(len(results.questions), dtype=np.bool_)
    return np.asarray([sought in f"{q.question_id}\n{q.text}".casefold() for q in results.questions], dtype=np.bool_)


def _text(value: object) -> str:
    return "" if value is None else str(value)
