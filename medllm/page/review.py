"""Blind review: a rater's next pair, the vote on it, and their HTML; models are named only afterwards."""

import random
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np

from medllm.errors import DataError
from medllm.exam.question import Question
from medllm.exam.record import Record
from medllm.page.html import LONGEST_CARD, both, percent, question_card, safe, word
from medllm.page.results import RecordedResults
from medllm.votes.agreement import Agreement
from medllm.votes.vote import CHOICES, LONGEST_NOTE, REASONS, Use, Vote, digest, use_of

COMMON = 20
"""Pairs at the beginning that every rater sees in the same order, so that agreement can be measured on them."""

ROLES = ("physician", "resident", "student", "pharmacist", "nurse", "other")


@dataclass(frozen=True)
class ReviewPair:
    """Two explanations of one question, as one rater sees them."""

    key: str
    a: Record
    b: Record

    @property
    def shown(self) -> str:
        """Identifier of these two texts, on these sides; it does not reveal the models."""
        return digest(f"{self.key}\n{digest(self.a.completion)}\n{digest(self.b.completion)}")[:16]


@dataclass(frozen=True)
class Review:
    """The pairs of some results."""

    results: RecordedResults
    cutoff: date | None = None

    @cached_property
    def candidates(self) -> list[tuple[str, str, str]]:
        """Question and two models of all pairs of unlike explanations, in fixed random order.

        Those that differ in correctness come first. Texts that are equal but for blanks are no pair.
        """
        differing, alike = [], []
        for first, second in combinations(self.results.models, 2):
            there = self.results.there[first, "explain"] & self.results.there[second, "explain"]
            there &= self.results.texts[first, "explain"] != self.results.texts[second, "explain"]
            differ = self.results.right[first, "explain"] != self.results.right[second, "explain"]
            differing += [(self.results.keys[at], first, second) for at in np.flatnonzero(there & differ)]
            alike += [(self.results.keys[at], first, second) for at in np.flatnonzero(there & ~differ)]
        chance = random.Random("\n".join(self.results.keys[:50]))
        chance.shuffle(differing)
        chance.shuffle(alike)
        return differing + alike

    def pair(self, rater: str, at: int) -> ReviewPair | None:
        """Return the pair a rater sees at a position; it is always the same, so a vote sent twice is one vote."""
        order = self._order(rater)
        if not 0 <= at < len(order):
            return None
        key, first, second = order[at]
        if digest(f"{rater}\n{key}\n{first}\n{second}")[0] in "02468ace":
            first, second = second, first
        a, b = self.results.record(key, first, "explain"), self.results.record(key, second, "explain")
        assert a is not None
        assert b is not None
        return ReviewPair(key, a, b)

    def _order(self, rater: str) -> list[tuple[str, str, str]]:
        own = self.candidates[COMMON:]
        random.Random(rater).shuffle(own)
        return self.candidates[:COMMON] + own

    def vote(self, form: dict[str, Any]) -> Vote:
        """Check a vote that a browser sent; DataError names its fault."""
        rater, at = str(form.get("rater", ""))[:64], form.get("at")
        if not rater or not isinstance(at, int):
            raise DataError(
                "preferences.incomplete-vote", "The vote does not name its rater or its pair. Load the page again."
            )
        pair = self.pair(rater, at)
        if pair is None or form.get("shown") != pair.shown:
            raise DataError(
                "preferences.outdated-vote", "The vote is about texts that are no longer shown. Load the page again."
            )
        if form.get("choice") not in CHOICES:
            raise DataError(
                "preferences.unknown-choice",
                f"The vote's choice is none of {', '.join(CHOICES)}. Press one of the four buttons.",
            )
        origin = self.results.origin
        return Vote(
            vote_id=vote_id(rater, pair),
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            benchmark=pair.a.benchmark,
            question_id=pair.a.question_id,
            model_a=pair.a.model,
            model_b=pair.b.model,
            completion_a=digest(pair.a.completion),
            completion_b=digest(pair.b.completion),
            length_a=len(pair.a.completion),
            length_b=len(pair.b.completion),
            choice=form["choice"],
            **_vote_fields(form, pair),
            rater=digest(rater)[:16],
            results=origin.name + (f"@{origin.revision}" if origin.revision else ""),
            use=use_of(self.results.question(pair.key), self.cutoff),
        )


def vote_id(rater: str, pair: ReviewPair) -> str:
    """Return the id of a rater's vote on a pair: sent twice, it is the same vote."""
    return digest(f"{rater}\n{pair.shown}")[:32]


def _vote_fields(form: dict[str, Any], pair: ReviewPair) -> dict[str, Any]:
    """Return the rater's remarks beside the choice, each limited to the values that the form allows."""
    seconds = form.get("seconds")
    return {
        "reasons_a": tuple(reason for reason in REASONS if reason in _list(form, "reasons_a")),
        "reasons_b": tuple(reason for reason in REASONS if reason in _list(form, "reasons_b")),
        "faulty_a": _marked(form, "faulty_a", pair.a),
        "faulty_b": _marked(form, "faulty_b", pair.b),
        "note": str(form.get("note", ""))[:LONGEST_NOTE],
        "role": form["role"] if form.get("role") in ROLES else "",
        "language": "en" if form.get("language") == "en" else "ja",
        "seconds": round(float(seconds), 1) if isinstance(seconds, int | float) and 0 <= seconds < 86400 else 0.0,
    }


def _list(form: dict[str, Any], name: str) -> list[Any]:
    value = form.get(name)
    return value if isinstance(value, list) else []


def _marked(form: dict[str, Any], name: str, record: Record) -> tuple[str, ...]:
    """Return the marked sentences, taken from the recorded text by number: the browser cannot add its own words."""
    parts = sentences(record.completion)
    places = sorted({place for place in _list(form, name) if isinstance(place, int) and 0 <= place < len(parts)})
    return tuple(parts[place].strip() for place in places)


def sentences(text: str) -> list[str]:
    r"""Cut a text after its sentence ends and line breaks; joined again it is the same text.

    >>> sentences("発熱がある。肺炎か？\n答え：a")
    ['発熱がある。', '肺炎か？\n', '答え：a']
    """
    return [part for part in re.findall(r"[^。！？!?\n]*(?:[。！？!?]+[」』）)]*\n*|\n+|$)", text) if part]


def pair_form(pair: ReviewPair, question: Question, at: int, use: Use, language: str = "ja") -> str:
    """Return one pair with the form of a vote; a list of choices can be in one language only."""
    sides = "".join(_side(name, record.completion) for name, record in (("a", pair.a), ("b", pair.b)))
    buttons = "".join(
        f'<button type="button" data-choose="{choice}" disabled>{both(f"choose_{choice}")}</button>'
        for choice in CHOICES
    )
    roles = "".join(f'<option value="{role}">{safe(word(f"role_{role}", language))}</option>' for role in ROLES)
    return (
        f'<form class="vote" data-at="{at}" data-shown="{pair.shown}">{question_card(pair.key, question)}'
        f'<p class="quiet">{both("review_how")}</p><div class="pair">{sides}</div>'
        f"<fieldset><legend>{both('review_more')}</legend>"
        f'<label for="vote-role">{both("role")}</label>'
        f'<select id="vote-role" name="role"><option value="">–</option>{roles}</select>'
        f'<label for="vote-note">{both("note")}</label>'
        f'<textarea id="vote-note" name="note" rows="2" maxlength="{LONGEST_NOTE}"></textarea></fieldset>'
        f'<p class="quiet">{_use(use)}</p>'
        f'<label><input type="checkbox" name="consent"> {both("consent")}</label>'
        f'<div class="choose">{buttons}</div><p class="vote-status" role="status" aria-live="polite"></p></form>'
    )


def _side(name: str, text: str) -> str:
    shown = sentences(text[:LONGEST_CARD])
    marked = "".join(
        f'<button type="button" data-sentence="{place}" aria-pressed="false">{safe(part)}</button>'
        for place, part in enumerate(shown)
    )
    boxes = "".join(
        f'<label><input type="checkbox" name="reasons_{name}" value="{reason}"> {both(f"reason_{reason}")}</label>'
        for reason in REASONS
    )
    letter = name.upper()
    return (
        f'<div class="card side" data-side="{name}">'
        f'<h2 id="side-{name}">{letter}</h2>'
        f'<div class="text" tabindex="0" role="region" aria-labelledby="side-{name}">{marked}</div>'
        f"<fieldset><legend>{both('reasons_of', side=letter)}</legend>{boxes}</fieldset></div>"
    )


def thanks(pair: ReviewPair, vote: Vote, question: Question) -> str:
    """Return the message after a vote is safe: thanks, the two models' names, and their verdicts."""
    rows = "".join(
        f"<li><b>{side}</b> = {safe(record.model)}: {safe((record.answer or '–').upper())} "
        f"{both('right' if record.correct else 'unparsed' if record.answer is None else 'wrong')}</li>"
        for side, record in (("A", pair.a), ("B", pair.b))
    )
    return (
        f'<section class="card panel" tabindex="-1" id="thanks"><h2>{both("thanks")}</h2><ul>{rows}</ul>'
        f"<p>{both('key')}: {safe(question.gold_answer.upper())} · {_use(vote.use)}</p>"
        f'<div class="tools"><button type="button" data-next-pair>{both("next_pair")}</button></div></section>'
    )


def _use(use: Use) -> str:
    return both("use_training" if use == "training" else "use_evaluation_only")


def no_more(reason: str = "no_pairs") -> str:
    """Return the message for a rater who has seen every pair, or (`never_pairs`) where there is none."""
    return f'<p class="card panel" role="status">{both(reason)}</p>'


def agreement_line(found: Agreement) -> str:
    """Return the figures of agreement, with the counts behind them."""
    text = both("agreement_counts", votes=found.votes, raters=found.raters, pairs=found.pairs)
    kappa = found.fleiss
    if kappa.value == kappa.value:
        ends = f" [{kappa.low:.2f}, {kappa.high:.2f}]" if kappa.low == kappa.low else ""
        interval = f"κ = {kappa.value:.2f}{ends}".replace("-", "−")
        text += f" {both('agreement_equal', share=percent(found.equal))} {safe(interval)}"
    return f'<p class="quiet" id="agreement">{text}</p>'
