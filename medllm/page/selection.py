"""Selection of questions: by exam, year, section, image or outcome, and the list behind a number, also as a file."""

import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Literal, get_args
from urllib.parse import quote, urlencode

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from medllm.exam.question import Question
from medllm.exam.record import PROMPTS, PromptStyle, Record
from medllm.page.html import both, category_html, hidden, safe
from medllm.page.results import Column, RecordedResults

Mask = npt.NDArray[np.bool_]
Outcome = Literal[
    "lost", "lost_wrong", "lost_prohibited", "lost_unread", "lost_cut", "gained", "kept", "never", "prohibited",
    "any_lost", "any_gained", "disagree", "all_wrong",
    "plain_right", "plain_wrong", "plain_unparsed",
    "explain_right", "explain_wrong", "explain_unparsed", "asked",
    "think_lost", "think_gained", "think_right", "think_wrong", "think_unparsed",
]  # fmt: skip
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
Sort = Literal["", "hardest", "longest", "flips"]
"""The order of a list: as in the exams, fewest right answers first, longest reply first, most changed answers first."""
SORTS: tuple[Sort, ...] = get_args(Sort)


def outcomes(results: RecordedResults) -> list[Outcome]:
    """Return the outcomes that these results can have: a change needs replies under both of its prompts."""
    return [name for name in OUTCOMES if set(_prompts_of(name)) <= set(results.shown)]


def _prompts_of(wanted: Outcome) -> tuple[PromptStyle, ...]:
    """Return the prompts without which nothing has an outcome."""
    if wanted in ("think_lost", "think_gained"):
        return "plain", "think"
    if wanted.startswith(("lost", "gained", "kept", "never", "any_")):
        return "plain", "explain"
    return tuple(prompt for prompt in PROMPTS if wanted.startswith(f"{prompt}_"))


def default_outcome(results: RecordedResults) -> Outcome:
    """Return the outcome that a list begins with: lost answers, or every question where none can be lost."""
    return "lost" if "lost" in outcomes(results) else "asked"


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
    """Return the questions on which a model had this outcome; questions it was not asked never count.

    The outcomes `any_lost`, `any_gained`, `disagree` and `all_wrong` are those of all models together.
    """
    plain: Column = (model, "plain")
    explained: Column = (model, "explain")
    thought: Column = (model, "think")
    right, there, lost = results.right, results.there, results.unanswered
    harmful, cut = results.harmful, results.cut
    twice = there[plain] & there[explained]
    masks: dict[Outcome, Callable[[], Mask]] = {
        "lost": lambda: twice & right[plain] & ~right[explained],
        "lost_wrong": lambda: twice & right[plain] & ~right[explained] & ~lost[explained] & ~harmful[explained],
        "lost_prohibited": lambda: twice & right[plain] & ~right[explained] & harmful[explained],
        "lost_unread": lambda: twice & right[plain] & lost[explained] & ~cut[explained],
        "lost_cut": lambda: twice & right[plain] & cut[explained],
        "prohibited": lambda: harmful[plain] | harmful[explained] | harmful[thought],
        "gained": lambda: twice & ~right[plain] & right[explained],
        "kept": lambda: twice & right[plain] & right[explained],
        "never": lambda: twice & ~right[plain] & ~right[explained],
        "plain_right": lambda: right[plain],
        "plain_wrong": lambda: there[plain] & ~right[plain] & ~lost[plain],
        "plain_unparsed": lambda: lost[plain],
        "explain_right": lambda: right[explained],
        "explain_wrong": lambda: there[explained] & ~right[explained] & ~lost[explained],
        "explain_unparsed": lambda: lost[explained],
        "any_lost": lambda: _of_any(results, "lost"),
        "any_gained": lambda: _of_any(results, "gained"),
        "disagree": lambda: _disagreement(results),
        "all_wrong": lambda: _right_share(results) == 0,
        "asked": lambda: there[plain] | there[explained] | there[thought],
        "think_lost": lambda: there[plain] & there[thought] & right[plain] & ~right[thought],
        "think_gained": lambda: there[plain] & there[thought] & ~right[plain] & right[thought],
        "think_right": lambda: right[thought],
        "think_wrong": lambda: there[thought] & ~right[thought] & ~lost[thought],
        "think_unparsed": lambda: lost[thought],
    }
    return masks[wanted]()


def _of_any(results: RecordedResults, wanted: Outcome) -> Mask:
    mask: Mask = np.any([outcome(results, model, wanted) for model in results.models], axis=0)
    return mask


def _disagreement(results: RecordedResults) -> Mask:
    """The questions to which two models gave different answers under one prompt; an unread reply gives none."""

    def compare() -> Mask:
        answers = np.asarray([*(answer or "" for answer in results.table.column("answer").to_pylist()), ""])
        mask = np.zeros(len(results.questions), dtype=np.bool_)
        for prompt in results.shown:
            first = np.full(len(mask), "", dtype=answers.dtype)
            for model in results.models:
                own = answers[results.rows[model, prompt]]
                mask |= (own != "") & (first != "") & (own != first)
                first = np.where(first == "", own, first)
        return mask

    return results.remembered("models disagree", compare)


Numbers = npt.NDArray[np.float64]


def _right_share(results: RecordedResults) -> Numbers:
    """The share of the replies to each question that are right; NaN where there is no reply."""
    columns = [(model, prompt) for model in results.models for prompt in results.shown]
    right: Numbers = np.asarray([results.right[column] for column in columns], dtype=np.float64).sum(axis=0)
    there: Numbers = np.asarray([results.there[column] for column in columns], dtype=np.float64).sum(axis=0)
    return np.where(there > 0, right / np.maximum(there, 1), np.nan)


def _rank(results: RecordedResults, sort: Sort) -> Numbers:
    """A number for each question: the list begins with the smallest."""
    if sort == "hardest":
        return _right_share(results)
    ranks: Numbers = np.zeros(len(results.questions))
    if sort == "flips":
        for model in results.models:
            ranks -= outcome(results, model, "lost") | outcome(results, model, "gained")
    if sort == "longest":
        length = np.append(pc.utf8_length(results.table.column("completion")).fill_null(0).to_numpy(), 0)
        for places in results.rows.values():
            ranks = np.minimum(ranks, -length[places].astype(np.float64))
    return ranks


def containing(results: RecordedResults, text: str) -> Mask:
    """Return the questions of which id, text, choices or a reply contain every one of these words, in any width."""
    sought = fold(text).split()
    mask = np.ones(len(results.questions), dtype=np.bool_)
    asked = results.remembered("folded questions", lambda: [fold(_everything(q)) for q in results.questions])
    for each in sought:
        there = np.asarray([each in text for text in asked], dtype=np.bool_)
        replied = pc.match_substring(
            pc.utf8_normalize(results.table.column("completion"), "NFKC"), each, ignore_case=True
        )
        rows = np.append(np.asarray(replied.fill_null(False)), False)
        for places in results.rows.values():
            there |= rows[places]
        mask &= there
    return mask


def fold(text: str) -> str:
    """Return text as a search compares it: one width, one case.

    >>> fold("ＣＴ検査 １１２Ａ３")
    'ct検査 112a3'
    """
    return unicodedata.normalize("NFKC", text).casefold()


def _everything(question: Question) -> str:
    return "\n".join((question.question_id, question.context or "", question.text, *question.choices))


def _text(value: object) -> str:
    return "" if value is None else str(value)


PAGE = 10
"""Rows shown at first and added by each "more"."""
SEARCHES = 32
"""Searches that are kept, a bit for each question."""


@dataclass(frozen=True)
class Wanted:
    """The selection that the list shows."""

    model: str
    outcome: Outcome = "lost"
    narrow: Filter = field(default_factory=Filter)
    text: str = ""
    sort: Sort = ""

    def keys(self, results: RecordedResults) -> list[str]:
        """Return the questions in the wanted order; questions of equal rank keep the order of the results."""
        if self.model not in results.models or self.outcome not in OUTCOMES:
            return []
        mask = outcome(results, self.model, self.outcome) & self.narrow.mask(results) & self._found(results)
        places = np.flatnonzero(mask)
        order = np.argsort(_rank(results, self.sort)[places], kind="stable") if self.sort else np.arange(len(places))
        return [results.keys[place] for place in places[order]]

    def _found(self, results: RecordedResults) -> Mask:
        """What the search finds; the last searches are kept, since a list that is walked is searched at each step."""
        kept: dict[str, Mask] = results.remembered("searches", dict)
        mask = kept.get(self.text)
        if mask is None:
            mask = containing(results, self.text)
            for old in list(kept)[: max(0, len(kept) + 1 - SEARCHES)]:
                kept.pop(old, None)  # another reader may have done so
            kept[self.text] = mask
        return mask

    def query(self) -> str:
        """Return the selection as part of an address."""
        fields = {
            "model": self.model, "outcome": self.outcome, "exam": self.narrow.exam, "year": self.narrow.year,
            "section": self.narrow.section, "category": self.narrow.category, "find": self.text, "sort": self.sort,
            "text": "1" if self.narrow.text_only else "",
        }  # fmt: skip
        return urlencode({name: value for name, value in fields.items() if value})

    @classmethod
    def read(cls, query: dict[str, str], results: RecordedResults) -> "Wanted":
        """Read the selection from an address; a field that the address does not name has its default."""
        exam, year, section, category, text = (
            query.get(name, "")[:200] for name in ("exam", "year", "section", "category", "find")
        )
        narrow = Filter(exam, year, section, category, text_only=query.get("text") == "1")
        offered = outcomes(results)
        wanted: Outcome = next((name for name in offered if name == query.get("outcome")), default_outcome(results))
        sort: Sort = next((name for name in SORTS if name == query.get("sort")), "")
        return cls(query.get("model", results.models[0]), wanted, narrow, text, sort)


def rows(results: RecordedResults, wanted: Wanted, shown: int) -> str:
    """Return the list as buttons that open Compare, with its count and its downloads."""
    keys = wanted.keys(results)
    total = int(np.count_nonzero(wanted.narrow.mask(results)))
    items = "".join(f"<li>{_row(results, key, wanted.model, wanted.text)}</li>" for key in keys[:shown])
    links = "".join(
        f'<a href="{safe(f"medllm/list.{form}?{wanted.query()}")}" download>'
        f"<span>{both('download', form=form.upper())}</span></a>"
        for form in ("csv", "jsonl")
    )
    own = safe(f"medllm/list.csv?{wanted.query()}&only=1")
    links += f'<a href="{own}" download><span>{both("download_model", model=wanted.model)}</span></a>'
    short = safe(f"medllm/list.csv?{wanted.query()}&columns=no-texts")
    links += f'<a href="{short}" download><span>{both("download_short")}</span></a>'
    empty = f'<p class="card">{both("no_rows")}</p>' if not keys else ""
    return (
        f'<p class="count" role="status"><b>{len(keys):,}</b> / {total:,} {both("questions")}</p>'
        f'<div class="tools">{links}</div>{empty}'
        f'<ul class="list{" many" if len(results.models) > 4 else ""}">{items}</ul>'
    )


def _row(results: RecordedResults, key: str, model: str, sought: str) -> str:
    question = results.question(key)
    turns = "".join(
        f'<span class="{"chosen" if other == model else ""}"><small>{safe(other)}</small>'
        f"{'→'.join(_mark(results, key, other, prompt) for prompt in results.shown)}</span>"
        for other in results.models
    )
    return (
        f'<button type="button" data-key="{quote(key, safe="/")}"><span class="id">{safe(question.question_id)}</span>'
        f'<span class="subject">{category_html(question.category or question.benchmark)}</span>'
        f'<span class="text" lang="{question.language}">{marked(beginning(question.text), sought)}'
        f'</span><span class="turns">{turns}</span></button>'
    )


def beginning(text: str, most: int = 120) -> str:
    """Return the beginning of a text, ended by … where it is cut, and never within a number or a Latin word.

    >>> beginning("血圧 120/80 mmHg。SpO2 94 %", 17), beginning("発熱", 17)
    ('血圧 120/80 mmHg。…', '発熱')
    """
    if len(text) <= most:
        return text
    cut = text[:most]
    while len(cut) > 1 and cut[-1].isascii() and cut[-1].isalnum() and text[len(cut)].isascii():
        cut = cut[:-1]
    return cut.rstrip() + "…"


def marked(text: str, sought: str) -> str:
    """Return text as safe HTML in which the words of a search are marked."""
    folded = fold(text)
    if len(folded) != len(text) or not sought.strip():
        return safe(text)
    inside = [False] * len(text)
    for each in fold(sought).split():
        at = folded.find(each)
        while at >= 0:
            inside[at : at + len(each)] = [True] * len(each)
            at = folded.find(each, at + len(each))
    runs = (
        (hit, "".join(letter for _, letter in run))
        for hit, run in groupby(zip(inside, text, strict=True), itemgetter(0))
    )
    return "".join(f"<mark>{safe(run)}</mark>" if hit else safe(run) for hit, run in runs)


def _mark(results: RecordedResults, key: str, model: str, prompt: str) -> str:
    place, column = results.place[key], (model, prompt)
    row = int(results.rows[column][place])  # type: ignore[index]
    answers = results.remembered("answers", lambda: results.table.column("answer").to_pylist())
    letter = safe(str(answers[row]).upper()) if row >= 0 and answers[row] else ""
    if row < 0:
        sign, name = "·", "absent"
    elif results.right[column][place]:  # type: ignore[index]
        sign, name = "✓", "right"
    elif results.unanswered[column][place]:  # type: ignore[index]
        sign, name = ("…", "truncated") if results.cut[column][place] else ("?", "unparsed")  # type: ignore[index]
    elif results.harmful[column][place]:  # type: ignore[index]
        sign, name = "✗⚠", "prohibited"
    else:
        sign, name = "✗", "wrong"
    return f'{letter}<span aria-hidden="true">{sign}</span>{hidden(name)}'


def records_of(results: RecordedResults, wanted: Wanted, *, only: bool = False) -> Iterator[Record]:
    """Yield every reply to the listed questions, for a download; `only` those of the chosen model."""
    for key in wanted.keys(results):
        for record in results.replies(key).values():
            if not only or record.model == wanted.model:
                yield record
