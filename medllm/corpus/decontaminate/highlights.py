"""The places of an exam item in a text, so that a person can check what the audit found."""

from typing import NamedTuple

import numpy as np

from medllm.corpus.decontaminate.exam_items import ExamItem
from medllm.corpus.decontaminate.ngrams import fold_audit, fold_places, hash_grams
from medllm.corpus.decontaminate.reveal import reveal, reveal_places
from medllm.corpus.decontaminate.thresholds import ALPHABETIC, JAPANESE

EXCERPT_CHARACTERS = 1500
"""Characters of a text that are shown around a match."""


class Excerpt(NamedTuple):
    """A stretch of text, marked or not."""

    text: str
    marked: bool


def spans(text: str, item: ExamItem) -> list[tuple[int, int]]:
    """Find the stretches that the text shares with the item, by its grams, and for short items by shorter ones.

    Markup, escapes and readings that hide the item are removed as in the audit; a stretch includes them.
    """
    measure = ALPHABETIC if item.alphabetic else JAPANESE
    shown, begins, ends = reveal_places(text)
    codes, places = fold_places(shown)
    parts = [fold_audit(reveal(part)) for part in (item.question, *item.options)]
    brief = len(parts[0]) < measure.length + measure.question_apart
    for length in (measure.near,) if brief else (measure.length, measure.near):
        grams = np.concatenate([hash_grams(part, length) for part in parts])
        found = np.flatnonzero(np.isin(hash_grams(codes, length), grams))
        if len(found):
            first, last = begins[places[found]], ends[places[found + length - 1]]
            return _joined(list(zip(first.tolist(), last.tolist(), strict=True)))
    return []


def _joined(stretches: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for begin, end in stretches:
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((begin, end))
    return joined


def excerpt(text: str, item: ExamItem) -> list[Excerpt]:
    """Return the part of the text with most of the item in it, cut where marked stretches begin and end."""
    marked = spans(text, item)
    if not marked:
        return [Excerpt(text[:EXCERPT_CHARACTERS], False)]
    begins = [max(begin - 100, 0) for begin, _ in marked]
    begin = max(
        begins,
        key=lambda at: sum(
            min(e, at + EXCERPT_CHARACTERS) - b for b, e in marked if b >= at and b < at + EXCERPT_CHARACTERS
        ),
    )
    end = min(begin + EXCERPT_CHARACTERS, len(text))
    pieces, at = [], begin
    for b, e in marked:
        b, e = max(b, begin), min(e, end)
        if b >= e:
            continue
        pieces += [Excerpt(text[at:b], False), Excerpt(text[b:e], True)]
        at = e
    return [piece for piece in (*pieces, Excerpt(text[at:end], False)) if piece.text]
