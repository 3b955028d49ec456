"""Matching in texts of any length: long ones a slice at a time, so that memory is bounded."""

import functools
from collections.abc import Sequence

from medllm.corpus.decontaminate.exam_items import ExamItem, Match
from medllm.corpus.decontaminate.matcher import ExamIndex

SLICE = 1_000_000
"""Characters searched together."""
OVERLAP = 8_192
"""Characters that two slices share: more than an item and its surroundings."""


@functools.lru_cache(maxsize=2)
def index_of(items: tuple[ExamItem, ...], floor: float) -> ExamIndex:
    """Return the index, built once in each process: a build is faster than a transfer."""
    return ExamIndex(items, floor=floor)


def match_in_slices(index: ExamIndex, texts: Sequence[str]) -> list[tuple[list[Match], list[Match]]]:
    """Return for each text the flagged matches, and where each item left its largest trace within these texts.

    A text longer than a slice is searched slice by slice, overlapping by more than any window, so that memory is
    bounded by the slice and not by the text.
    """
    owners = [(number, text[at : at + SLICE + OVERLAP]) for number, text in enumerate(texts) for at in _starts(text)]
    results: list[tuple[dict[int, Match], dict[int, Match]]] = [({}, {}) for _ in texts]
    for begin in range(0, len(owners), 1000):
        part = owners[begin : begin + 1000]
        seen = index.match([text for _, text in part])
        for place, matches in enumerate((seen.flagged, seen.largest)):
            for one in matches:
                number = part[one.document][0]
                known = results[number][place].get(one.item)
                if known is None or one.containment > known.containment:
                    results[number][place][one.item] = one._replace(document=number)
    return [(list(flagged.values()), list(largest.values())) for flagged, largest in results]


def _starts(text: str) -> range:
    return range(0, max(len(text) - OVERLAP, 1), SLICE)
