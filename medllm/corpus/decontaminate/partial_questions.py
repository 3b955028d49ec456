"""Exam items of which a text shows little: short questions, and those changed, reworded or scanned with errors."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from medllm.corpus.decontaminate.exam_items import ExamItem, Match, Thresholds
from medllm.corpus.decontaminate.ngram_index import Numbers, Weights
from medllm.corpus.decontaminate.ngrams import (
    ALPHABET,
    Codes,
    Hashes,
    Numbering,
    among,
    distinct_values,
    fold_all,
    fold_audit,
    hash_each,
    hash_grams,
    marked,
    written,
)

Mask = npt.NDArray[np.bool_]
LEAST = 300
"""Minimum length, in folded characters, of a stretch that is weighed."""
SHARED = 2
"""Maximum number of exam items that share a run which still points at them."""
ROOM = 20
"""Folded characters by which a reworded item may exceed one and a half times its own length."""
RETOLD = 0.49
"""Containment of a changed item below `loose_drop`: it is reviewed, and a share of 0.5 never drops it."""


class _Stretch(NamedTuple):
    """A part of a text to which enough runs of an item point."""

    text: int
    item: int
    begin: int
    end: int
    """One past the place where its last gram begins."""


class ChangedQuestions:
    """Index of items by their rare runs of characters, and by the weights of all their short grams.

    A run of `measure.anchor` characters that at most SHARED items have points at an item. Where `measure.pointers`
    different ones are within a stretch as long as the item, the stretch is weighed: the share of the item's grams of
    `measure.loose` characters that it holds, each counting one over the number of items that have it. Runs of letters
    alone point at nothing: eight letters are one word, and English texts are full of them.
    """

    def __init__(self, items: Sequence[ExamItem], measure: Thresholds) -> None:
        self._measure = measure
        texts = ["\n".join((item.question, *item.options)) for item in items]
        runs, of = hash_each(texts, measure.anchor)
        common = Counter(runs.tolist())
        rare = np.array([common[run] <= SHARED for run in runs.tolist()], np.bool_)
        rare &= ~among(runs, _words(fold_all(texts), measure.anchor))
        runs, of = runs[rare], of[rare]
        self._runs = Numbering(runs)
        order = np.argsort(runs, kind="stable")
        self._starts = np.append(np.searchsorted(runs[order], self._runs.known), len(order))
        self._owners = of[order]
        grams, owners = hash_each(texts, measure.loose)
        self._loose = Numbering(grams)
        numbers = np.searchsorted(self._loose.known, grams)
        weights = 1 / np.bincount(numbers)[numbers]
        ends = pairwise(np.searchsorted(owners, np.arange(len(items) + 1)).tolist())
        parts = [slice(begin, end) for begin, end in ends]
        self._grams = [numbers[part] for part in parts]
        self._weights = [weights[part] for part in parts]
        asked = [hash_grams(fold_audit(item.question), measure.loose) for item in items]
        self._asks = [among(grams[part], question) for part, question in zip(parts, asked, strict=True)]
        self._options = [[written(fold_audit(option)) for option in item.options] for item in items]
        lengths = [len(fold_audit(text)) for text in texts]
        self._spans = [max(LEAST, int(1.5 * length)) for length in lengths]
        self._rooms = [int(1.5 * length) + ROOM for length in lengths]

    def match(self, codes: Codes, hashed: Hashes, origins: Numbers, borders: Numbers) -> list[Match]:
        """Find changed items in the texts; `hashed` are the runs that begin at `origins` in `codes`."""
        stretches = list(self._stretches(hashed, origins, borders))
        if not stretches:
            return []
        numbers = self._loose.along(codes, self._measure.loose, [(stretch.begin, stretch.end) for stretch in stretches])
        marks = np.zeros(len(self._loose) + 1, np.bool_)
        best: dict[tuple[int, int], float] = {}
        for stretch in stretches:
            score = self._weigh(stretch, codes, numbers, marks)
            if score > best.get((stretch.text, stretch.item), 0.0):
                best[stretch.text, stretch.item] = score
        return [Match(text, item, round(score, 4), "together") for (text, item), score in best.items()]

    def _stretches(self, hashed: Hashes, origins: Numbers, borders: Numbers) -> Iterator[_Stretch]:
        """Yield every stretch with enough runs of one item."""
        places, where = self._runs.find(hashed)
        counts = self._starts[where + 1] - self._starts[where]
        first = np.repeat(self._starts[where] - (np.cumsum(counts) - counts), counts)
        items = self._owners[first + np.arange(len(first))]
        at, runs = np.repeat(origins[places], counts), np.repeat(where, counts)
        texts = np.searchsorted(borders, at)
        order = np.lexsort((at, items, texts))
        items, at, runs, texts = items[order], at[order], runs[order], texts[order]
        groups = np.flatnonzero(np.diff(items, prepend=-1) | np.diff(texts, prepend=-1))
        ends = np.append(groups[1:], len(items))
        enough = ends - groups >= self._measure.pointers
        for begin, end in zip(groups[enough].tolist(), ends[enough].tolist(), strict=True):
            text, item = int(texts[begin]), int(items[begin])
            low, high = (int(borders[text - 1]) + 1 if text else 0, int(borders[text]))
            reach = self._spans[item] // 2
            for left, right in self._pointed(self._spans[item], at[begin:end], runs[begin:end].tolist()):
                last = min(right + reach, high) - self._measure.loose + 1
                yield _Stretch(text, item, max(left - reach, low), last)

    def _pointed(self, span: int, at: Numbers, runs: list[int]) -> Iterator[tuple[int, int]]:
        """Yield the first and the last run of every stretch with enough different runs."""
        pointers, weighed, places = self._measure.pointers, -LEAST * 1000, at.tolist()
        for number, end in enumerate(np.searchsorted(at, at + span, side="right").tolist()):
            # A stretch that begins well inside the last weighed one is not weighed again.
            if end - number < pointers or places[number] < weighed + span // 4:
                continue
            if len(set(runs[number:end])) >= pointers:
                weighed = places[number]
                yield places[number], places[end - 1]

    def _weigh(self, stretch: _Stretch, codes: Codes, numbers: Numbers, marks: Mask) -> float:
        """Return the containment of the item in the stretch, 0 if too little; `marks` are off before and after.

        A nearly whole item is dropped; a person judges one that is only reworded.
        """
        near = numbers[stretch.begin : stretch.end]
        held = marked(marks, near, self._grams[stretch.item])
        measure, weights, asks = self._measure, self._weights[stretch.item], self._asks[stretch.item]
        share = _share(weights, held)
        if share >= measure.loose_review and _share(weights[asks], held[asks]) >= measure.loose_question:
            return share if share >= measure.loose_drop else min(share, RETOLD)
        if share < measure.framed_review:
            return 0.0
        begin, end = self._densest(stretch, near, marks)
        held = marked(marks, near[begin:end], self._grams[stretch.item])
        near_by = written(codes[stretch.begin + begin : stretch.begin + end + measure.loose - 1])
        return min(self._framed(stretch.item, held, near_by), RETOLD)

    def _densest(self, stretch: _Stretch, near: Numbers, marks: Mask) -> tuple[int, int]:
        """Return the part of a stretch, as long as the item may be, that has the most grams of the item."""
        grams, room = self._grams[stretch.item], self._rooms[stretch.item]
        marks[grams] = True
        hits = np.flatnonzero(marks[near])
        marks[grams] = False
        begin = int(hits[np.argmax(np.searchsorted(hits, hits + room) - np.arange(len(hits)))])
        return begin, min(begin + room, len(near))

    def _framed(self, item: int, held: Mask, near_by: str) -> float:
        """Return the weighed share of an item whose question has lost its own words but keeps its stock phrases."""
        measure, weights, asks = self._measure, self._weights[item], self._asks[item]
        share, frame = _share(weights, held), held[asks].mean() if asks.any() else 0.0
        if share >= measure.options_review and frame >= measure.options_frame:
            return share
        if share < measure.framed_review or frame < measure.framed_question:
            return 0.0
        whole = sum(option in near_by for option in self._options[item])
        options = share >= measure.framed_share and _share(weights[~asks], held[~asks]) >= measure.framed_options
        question = _share(weights[asks], held[asks]) >= measure.framed_words
        enough = (options and whole >= measure.framed_whole) or (question and whole > measure.framed_whole)
        return share if enough else 0.0


def _words(codes: Codes, length: int) -> Hashes:
    """Return the hashes of all runs of letters alone; digits do not count as letters: laboratory values point well."""
    letters = (codes < ALPHABET) & ~((codes >= ord("0")) & (codes <= ord("9")))
    rows = np.cumsum(np.append(0, letters), dtype=np.int64)
    words: Hashes = hash_grams(codes, length)[rows[length:] - rows[:-length] == length]
    return words


def _share(weights: Weights, held: Mask) -> float:
    return float(weights[held].sum() / max(float(weights.sum()), 1e-9))


NEAR = 150
"""Minimum number of folded characters searched on each side of an anchor."""
APART = 6000
"""Folded characters on each side of a question in which its options may be, each with a commentary."""

Reach = tuple[int, int]


class ShortQuestions:
    """Index of items whose question is as short as a stock phrase: a match needs the options near it."""

    def __init__(self, items: Sequence[ExamItem], numbers: Sequence[int], measure: Thresholds) -> None:
        self._measure = measure
        self._spans: dict[int, int] = {}
        self._options: dict[int, list[str]] = {}
        owners: dict[int, list[int]] = {}
        questions: dict[int, Hashes] = {}
        self.unsearchable: list[str] = []
        """Items without a run long enough to search for: reported, because no text can be cleared of them."""
        runs, of = hash_each([item.question for item in items], measure.anchor)
        common = Counter(runs.tolist())
        for number in numbers:
            item = items[number]
            question = runs[np.searchsorted(of, number) : np.searchsorted(of, number, "right")]
            if not len(question):
                self.unsearchable.append(item.name)
                continue
            for gram in sorted(question.tolist(), key=lambda gram: (common[gram], gram))[:2]:
                owners.setdefault(gram, []).append(number)
            questions[number] = distinct_values(hash_grams(fold_audit(item.question), measure.near))
            self._options[number] = [written(folded) for option in item.options if len(folded := fold_audit(option))]
            self._spans[number] = max(NEAR, 2 * (len(fold_audit(item.question)) + sum(map(len, self._options[number]))))
        self._anchors = Numbering(np.array(list(owners), np.uint64))
        self._owners = [owners[anchor] for anchor in self._anchors.known.tolist()]
        self._near = Numbering(np.concatenate([np.empty(0, np.uint64), *questions.values()]))
        self._questions = {name: np.searchsorted(self._near.known, hashes) for name, hashes in questions.items()}

    def match(self, codes: Codes, hashed: Hashes, origins: Numbers, borders: Numbers) -> list[Match]:
        """Find the short items in the texts; `hashed` are the runs that begin at `origins` in `codes`."""
        pointed = list(self._pointed(hashed, origins, borders))
        if not pointed:
            return []
        # A gram counts as near only if all of it is near.
        ends = [(begin, max(begin, end - self._measure.near + 1)) for _, _, _, (begin, end), _ in pointed]
        numbers = self._near.along(codes, self._measure.near, ends)
        marks = np.zeros(len(self._near) + 1, np.bool_)
        matches = []
        for (text, number, place, near, limits), (begin, end) in zip(pointed, ends, strict=True):
            wanted = self._questions[number]
            question = float(marked(marks, numbers[begin:end], wanted).sum()) / len(wanted)
            if question >= self._measure.short_question:
                held = self._weigh(number, question, codes, place, near, limits)
                if held:
                    matches.append(Match(text, number, round(held, 4), "together"))
        return matches

    def _pointed(
        self, hashed: Hashes, origins: Numbers, borders: Numbers
    ) -> Iterator[tuple[int, int, int, Reach, Reach]]:
        """Yield each text and item to weigh: place of its anchor, stretch near it and limits of the text."""
        places, anchors = self._anchors.find(hashed)
        places = origins[places]
        texts = np.searchsorted(borders, places)
        looked: dict[tuple[int, int], int] = {}
        for place, anchor, text in zip(places.tolist(), anchors.tolist(), texts.tolist(), strict=True):
            for number in self._owners[anchor]:
                # An anchor well inside the last weighed stretch is not weighed again.
                if place < looked.get((text, number), 0):
                    continue
                span = self._spans[number]
                looked[text, number] = place + span // 4
                limits = int(borders[text - 1]) + 1 if text else 0, int(borders[text])
                yield text, number, place, _around(place, span, limits), limits

    def _weigh(self, number: int, question: float, codes: Codes, place: int, near: Reach, limits: Reach) -> float:
        """Return the mean of the share of the question and the share of the options found; 0 when these are too few.

        Options are searched near the question first. Where nearly all of the question is there, most of its options
        may be anywhere around it, as in a commentary on each; a person judges such a match.
        """
        options, measure = self._options[number], self._measure
        share = _share_near(options, codes[slice(*near)]) if options else question
        if share >= measure.short_options:
            return (question + share) / 2
        if question < measure.apart_question or len(options) < 2:
            return 0.0
        share = _share_near(options, codes[slice(*_around(place, APART, limits))])
        return min((question + share) / 2, 0.49) if share >= measure.apart_options else 0.0


def _around(place: int, reach: int, limits: Reach) -> Reach:
    return max(limits[0], place - reach), min(limits[1], place + reach)


def _share_near(options: Sequence[str], near: Codes) -> float:
    whole = written(near)
    return sum(option in whole for option in options) / len(options)
