"""The inverted index: from hashed grams to the exam items that have them, for whole batches of text."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from medllm.corpus.decontaminate.exam_items import PARTS, ExamItem, Match, Thresholds
from medllm.corpus.decontaminate.ngrams import Hashes, Numbering, among, distinct_values, hash_each, paired

Numbers = npt.NDArray[np.int64]
Weights = npt.NDArray[Any]


class Windows(NamedTuple):
    """Stretches of a batch of texts that are searched together, numbered over all texts."""

    borders: Numbers
    """The end of each text."""
    step: int
    """A window is two steps long and each step begins one."""

    def first(self) -> Numbers:
        """Return the number of each text's first window; numbers stay free between texts, so no two share a window."""
        lengths = np.diff(self.borders, prepend=-1)
        return np.cumsum(np.append(1, lengths // self.step + 2))

    def at(self, places: Numbers) -> Numbers:
        """Return the window that begins with the step of each place."""
        texts = np.searchsorted(self.borders, places)
        begins = np.append(0, self.borders + 1)
        windows: Numbers = self.first()[texts] + (places - begins[texts]) // self.step
        return windows

    def texts(self, windows: Numbers) -> Numbers:
        """Return the text of each window."""
        numbers: Numbers = np.searchsorted(self.first(), windows + 1, side="right") - 1
        return numbers


class NgramIndex:
    """Index of all grams of the items of one script; about thirty bytes for each gram."""

    def __init__(self, items: Sequence[ExamItem], measure: Thresholds) -> None:
        self.items = items
        self.measure = measure
        grams, parts, self._owners, self._asks = _halves(items, measure.length)
        order = np.argsort(grams, kind="stable")
        self._parts = parts[order]
        self._grams = Numbering(grams)
        self._starts = np.append(np.searchsorted(grams[order], self._grams.known), len(order)).astype(np.int64)
        self._weigh()

    def _weigh(self) -> None:
        """Weigh a gram that k items share by 1/k: stock phrases weigh little, a re-used question stays whole."""
        lengths = np.diff(self._starts)
        numbers = np.repeat(np.arange(len(self._grams)), lengths)
        pairs = distinct_values(numbers * len(self.items) + self._owners[self._parts])
        shared = np.bincount(pairs // len(self.items), minlength=len(self._grams))
        self._weights = 1.0 / np.maximum(shared, 1)
        self._part_sizes = np.bincount(self._parts, self._weights[numbers], minlength=len(self._owners))
        counts = np.bincount(self._parts, minlength=len(self._owners))
        self.sizes = self._by_half(np.arange(len(self._owners)), self._part_sizes)
        self.counts = self._by_half(np.arange(len(self._owners)), counts.astype(np.float64))

    def _by_half(self, parts: Numbers, values: Weights) -> Weights:
        """Sum the values of parts for the question and for the options of each item."""
        halves = np.zeros((len(self.items), 2))
        np.add.at(halves, (self._owners[parts], np.where(self._asks[parts], 0, 1)), values)
        return halves

    def match(self, hashed: Hashes, places: Numbers, windows: Windows, floor: float) -> list[Match]:
        """Return the matches at or over the floor, and for each item the largest in any text."""
        if not len(self._grams):
            return []
        seen_at, grams = self._grams.find(hashed)
        inside = windows.at(places[seen_at])
        # Each place belongs to the window that its step begins and to the one before it.
        seen = np.concatenate([inside, inside - 1]) * len(self._grams) + np.concatenate([grams, grams])
        return self._score(*self._parts_held(distinct_values(seen)), windows, floor)

    def _parts_held(self, seen: Numbers) -> tuple[Numbers, Numbers, Weights]:
        """Return the weight of the matched grams for each window and part of an item with a gram in it."""
        inside, grams = np.divmod(seen, len(self._grams))
        lengths = self._starts[grams + 1] - self._starts[grams]
        ends = np.cumsum(lengths)
        within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)
        parts = self._parts[np.repeat(self._starts[grams], lengths) + within]
        keys, inverse = np.unique(np.repeat(inside, lengths) * len(self._owners) + parts, return_inverse=True)
        held = np.bincount(inverse, np.repeat(self._weights[grams], lengths), minlength=len(keys))
        inside, parts = np.divmod(keys, len(self._owners))
        return inside, parts, held

    def _score(self, inside: Numbers, parts: Numbers, held: Weights, windows: Windows, floor: float) -> list[Match]:
        if not len(inside):
            return []
        keys, inverse = np.unique(inside * len(self.items) + self._owners[parts], return_inverse=True)
        inside, items = np.divmod(keys, len(self.items))
        asks = self._asks[parts]
        sums = np.stack([np.bincount(inverse, np.where(half, held, 0.0), len(keys)) for half in (asks, ~asks)], axis=1)
        options = np.bincount(inverse, ~asks & (held >= 0.5 * self._part_sizes[parts]), len(keys))
        scores = self._containments(items, sums, options)
        best, which = scores.max(1), scores.argmax(1)
        texts = windows.texts(inside)
        order = np.lexsort((texts, -best, items))
        most = np.zeros(len(best), np.bool_)
        most[order[np.flatnonzero(np.diff(items[order], prepend=-1))]] = True
        return [
            Match(text, item, round(score, 4), PARTS[part])
            for text, item, score, part in zip(
                *(column[(best > 0) & (most | (best >= floor))].tolist() for column in (texts, items, best, which)),
                strict=True,
            )
        ]

    def _containments(self, items: Numbers, held: Weights, options: Weights) -> Weights:
        """Return the containment of the question, of the options and of both, each where there is enough evidence."""
        measure, sizes, counts = self.measure, self.sizes[items], self.counts[items]
        shares = held / np.maximum(sizes, 1e-9)
        question = np.where(counts[:, 0] >= measure.question_apart, shares[:, 0], 0.0)
        enough = (counts[:, 1] >= measure.options_apart) & (options >= measure.options_held)
        both = (counts.sum(1) >= measure.least) & (shares.min(1) >= measure.both)
        together = np.where(both, held.sum(1) / np.maximum(sizes.sum(1), 1e-9), 0.0)
        return np.stack([question, np.where(enough, shares[:, 1], 0.0), together], axis=1)


def _halves(items: Sequence[ExamItem], length: int) -> tuple[Hashes, Numbers, Numbers, npt.NDArray[np.bool_]]:
    """Return the grams of all questions and options with their part, and the item of each part and if it is a question.

    No gram spans two options, so their order does not matter; an option's grams that are in the question do not count.
    """
    parts = [(number, text) for number, item in enumerate(items) for text in (item.question, *item.options)]
    owners = np.array([number for number, _ in parts], np.int64)
    asks = np.diff(owners, prepend=-1) > 0
    hashed, part = hash_each([text for _, text in parts], length)
    pairs = paired(hashed, owners[part])
    new = asks[part] | ~among(pairs, pairs[asks[part]])
    return hashed[new], part[new], owners, asks
