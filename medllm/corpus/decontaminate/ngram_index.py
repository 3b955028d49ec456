"""The inverted index: from hashed grams to the exam items that have them, for whole batches of text."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from medllm.corpus.decontaminate.exam_items import PARTS, ExamItem, Match
from medllm.corpus.decontaminate.ngrams import Hashes, hash_each, paired
from medllm.corpus.decontaminate.numbering import Numbering
from medllm.corpus.decontaminate.thresholds import Thresholds

Numbers = npt.NDArray[np.int64]
Weights = npt.NDArray[Any]


class Windows(NamedTuple):
    """The stretches of a batch of texts that are looked at together, numbered over all texts."""

    borders: Numbers
    """Where each text ends."""
    step: int
    """A window is two steps long and each step begins one."""

    def first(self) -> Numbers:
        """The number of each text's first window; numbers stay free between texts, so no two share a window."""
        lengths = np.diff(self.borders, prepend=-1)
        return np.cumsum(np.append(1, lengths // self.step + 2))

    def at(self, places: Numbers) -> Numbers:
        """The window that begins with the step in which each place lies."""
        texts = np.searchsorted(self.borders, places)
        begins = np.append(0, self.borders + 1)
        found: Numbers = self.first()[texts] + (places - begins[texts]) // self.step
        return found

    def texts(self, windows: Numbers) -> Numbers:
        """The text in which each window lies."""
        found: Numbers = np.searchsorted(self.first(), windows + 1, side="right") - 1
        return found


class NgramIndex:
    """All grams of the items of one script; about thirty bytes for each."""

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
        """A gram that k items share counts 1/k: stock phrases weigh little, a re-used question stays whole."""
        lengths = np.diff(self._starts)
        numbers = np.repeat(np.arange(len(self._grams)), lengths)
        pairs = np.unique(numbers * len(self.items) + self._owners[self._parts])
        shared = np.bincount(pairs // len(self.items), minlength=len(self._grams))
        self._weights = 1.0 / np.maximum(shared, 1)
        self._part_sizes = np.bincount(self._parts, self._weights[numbers], minlength=len(self._owners))
        counts = np.bincount(self._parts, minlength=len(self._owners))
        self.sizes = self._by_half(np.arange(len(self._owners)), self._part_sizes)
        self.counts = self._by_half(np.arange(len(self._owners)), counts.astype(np.float64))

    def _by_half(self, parts: Numbers, values: Weights) -> Weights:
        """Values of parts summed up for the question and the options of each item."""
        halves = np.zeros((len(self.items), 2))
        np.add.at(halves, (self._owners[parts], np.where(self._asks[parts], 0, 1)), values)
        return halves

    def match(self, hashed: Hashes, places: Numbers, windows: Windows, floor: float) -> list[Match]:
        """What the texts hold at or over the floor, and of each item the most that any text holds."""
        if not len(self._grams):
            return []
        seen_at, found = self._grams.find(hashed)
        inside = windows.at(places[seen_at])
        # Each place lies in the window that its step begins and in the one before it.
        seen = np.concatenate([inside, inside - 1]) * len(self._grams) + np.concatenate([found, found])
        return self._score(*self._parts_held(np.unique(seen)), windows, floor)

    def _parts_held(self, seen: Numbers) -> tuple[Numbers, Numbers, Weights]:
        """For each window and part of an item with a gram in it, the weight that is held."""
        inside, found = np.divmod(seen, len(self._grams))
        lengths = self._starts[found + 1] - self._starts[found]
        ends = np.cumsum(lengths)
        within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)
        parts = self._parts[np.repeat(self._starts[found], lengths) + within]
        keys, inverse = np.unique(np.repeat(inside, lengths) * len(self._owners) + parts, return_inverse=True)
        held = np.bincount(inverse, np.repeat(self._weights[found], lengths), minlength=len(keys))
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
                *(found[(best > 0) & (most | (best >= floor))].tolist() for found in (texts, items, best, which)),
                strict=True,
            )
        ]

    def _containments(self, items: Numbers, held: Weights, options: Weights) -> Weights:
        """Containment of the question, of the options and of both, each where there is enough to judge by."""
        measure, sizes, counts = self.measure, self.sizes[items], self.counts[items]
        shares = held / np.maximum(sizes, 1e-9)
        question = np.where(counts[:, 0] >= measure.question_apart, shares[:, 0], 0.0)
        enough = (counts[:, 1] >= measure.options_apart) & (options >= measure.options_held)
        both = (counts.sum(1) >= measure.least) & (shares.min(1) >= measure.both)
        together = np.where(both, held.sum(1) / np.maximum(sizes.sum(1), 1e-9), 0.0)
        return np.stack([question, np.where(enough, shares[:, 1], 0.0), together], axis=1)


def _halves(items: Sequence[ExamItem], length: int) -> tuple[Hashes, Numbers, Numbers, npt.NDArray[np.bool_]]:
    """The grams of every question and option with their part, and for each part its item and whether it asks.

    None spans two options, so their order is nothing; what the question says already is not counted for an option.
    """
    parts = [(number, text) for number, item in enumerate(items) for text in (item.question, *item.options)]
    owners = np.array([number for number, _ in parts], np.int64)
    asks = np.diff(owners, prepend=-1) > 0
    hashed, part = hash_each([text for _, text in parts], length)
    said = paired(hashed, owners[part])
    new = asks[part] | ~np.isin(said, said[asks[part]])
    return hashed[new], part[new], owners, asks
