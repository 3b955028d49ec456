"""Blind review: the order in which a rater sees pairs, their blocks, and the vote that a browser sends on one."""

import random
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np

from medllm.errors import DataError
from medllm.exam.extract.completion import sentences
from medllm.exam.record import Record
from medllm.page.results import RecordedResults
from medllm.votes.vote import CHOICES, LONGEST_NOTE, REASONS, Choice, Vote, digest, use_of

COMMON = 20
"""Pairs at the beginning that every rater sees in the same order, so that agreement can be measured on them."""

BLOCK = COMMON
"""Pairs after whose last vote the models of all of them are named; from then on their votes are final."""

RATERS = 64
"""Raters whose order of pairs is kept."""

OFFERED: tuple[Choice, ...] = (*CHOICES, "skip")

ROLES = ("physician", "resident", "student", "pharmacist", "nurse", "other")


@dataclass(frozen=True)
class ReviewPair:
    """Two explanations of one question, as one rater sees them."""

    key: str
    a: Record
    b: Record

    @property
    def identity(self) -> tuple[Any, ...]:
        """What `pair_of` gives for a vote on these two texts."""
        sides = sorted((side.model, digest(side.completion)) for side in (self.a, self.b))
        return self.a.benchmark, self.a.question_id, *sides

    @property
    def shown(self) -> str:
        """Identifier of these two texts, on these sides; it does not reveal the models."""
        return digest(f"{self.key}\n{digest(self.a.completion)}\n{digest(self.b.completion)}")[:16]


@dataclass(frozen=True)
class Assignment:
    """Who rates what: each of the first `pairs` pairs goes to `overlap` of the raters, who take turns.

    >>> [Assignment(("s", "t", "u"), pairs=4, overlap=2).places(rater) for rater in "stuv"]
    [[0, 2, 3], [0, 1, 3], [1, 2], []]
    """

    raters: tuple[str, ...]
    """The raters' numbers, as `VoteBox.rater` gives them."""
    pairs: int
    overlap: int

    def places(self, rater: str) -> list[int]:
        """Return the places of a rater's pairs among all; empty for a rater who is not listed."""
        if rater not in self.raters:
            return []
        at = self.raters.index(rater)
        return [place for place in range(self.pairs) if (at - place) % len(self.raters) < self.overlap]


@dataclass(frozen=True)
class Review:
    """The pairs of some results."""

    results: RecordedResults
    cutoff: date | None = None
    assignment: Assignment | None = None
    """Who rates what; None: every rater may rate every pair."""

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

    def size(self, rater: str) -> int:
        """Return the number of pairs that a rater may rate."""
        return len(self._order(rater))

    def block(self, rater: str, at: int) -> range:
        """Return the positions of the block that a rater's position is in; the last block may be shorter."""
        first = at // BLOCK * BLOCK
        return range(first, min(first + BLOCK, self.size(rater)))

    @cached_property
    def _orders(self) -> dict[str, list[tuple[str, str, str]]]:
        """The orders of the last raters: one takes milliseconds to shuffle, and each request needs several pairs."""
        return {}

    def _order(self, rater: str) -> list[tuple[str, str, str]]:
        order = self._orders.get(rater)
        if order is None:
            common = 0 if self.assignment else COMMON
            places = self.assignment.places(rater) if self.assignment else range(len(self.candidates))
            order = [self.candidates[place] for place in places if place < len(self.candidates)]
            own = order[common:]
            random.Random(rater).shuffle(own)
            order[common:] = own
            for old in list(self._orders)[: max(0, len(self._orders) + 1 - RATERS)]:
                self._orders.pop(old, None)  # another request may have done so
            self._orders[rater] = order
        return order

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
        if form.get("choice") not in OFFERED:
            raise DataError(
                "preferences.unknown-choice",
                f"The vote's choice is none of {', '.join(OFFERED)}. Press one of the five buttons.",
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
            rater=rater_number(rater),
            results=origin.name + (f"@{origin.revision}" if origin.revision else ""),
            use=use_of(self.results.question(pair.key), self.cutoff),
        )


def vote_id(rater: str, pair: ReviewPair) -> str:
    """Return the id of a rater's vote on a pair: sent twice, it is the same vote."""
    return digest(f"{rater}\n{pair.shown}")[:32]


def rater_number(rater: str) -> str:
    """Return what votes hold in place of a rater."""
    return digest(rater)[:16]


def correction_id(earlier: str) -> str:
    """Return the id of the vote that corrects an earlier one: sent twice, it is the same vote."""
    return digest(f"{earlier}\ncorrected")[:32]


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
