"""Exam items that were changed on the way: scanned with errors, or retold with other words; found by what is left."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from medllm.corpus.decontaminate.exam_items import Item, Sighting
from medllm.corpus.decontaminate.ngram_index import Numbers, Weights
from medllm.corpus.decontaminate.ngrams import Codes, Hashes, fold_audit, hash_each, hash_grams, top_bits
from medllm.corpus.decontaminate.thresholds import Measure

Held = npt.NDArray[np.bool_]
LEAST = 300
"""Folded characters of the stretch that is weighed, at the least."""
SHARED = 2
"""Items of the exam that may share a run for it to point at them."""
RETOLD = 0.49
"""What a changed item counts as contained below `loose_drop`: it is reviewed, and a share of 0.5 never drops it."""
_BITS = 22


class NoisyItems:
    """Items by their rare runs of characters, and by the weights of all their short grams.

    A run of `measure.anchor` characters that at most SHARED items have points at an item. Where `measure.pointers`
    different ones stand within a stretch as long as the item, the stretch is weighed: the share of the item's grams of
    `measure.loose` characters that it holds, each counting one over the number of items that have it.
    """

    def __init__(self, items: Sequence[Item], measure: Measure) -> None:
        self._measure = measure
        texts = ["\n".join((item.question, *item.options)) for item in items]
        runs, of = hash_each(texts, measure.anchor)
        common = Counter(runs.tolist())
        rare = np.array([common[run] <= SHARED for run in runs.tolist()], np.bool_)
        runs, of = runs[rare], of[rare]
        order = np.argsort(runs, kind="stable")
        self._runs, starts = np.unique(runs[order], return_index=True)
        self._starts = np.append(starts, len(order))
        self._owners = of[order]
        self._table = np.zeros(1 << _BITS, np.bool_)
        self._table[top_bits(self._runs, _BITS)] = True
        grams, owners = hash_each(texts, measure.loose)
        shared = Counter(grams.tolist())
        weights = np.array([1 / shared[gram] for gram in grams.tolist()])
        ends = pairwise(np.searchsorted(owners, np.arange(len(items) + 1)).tolist())
        parts = [slice(begin, end) for begin, end in ends]
        self._grams = [grams[part] for part in parts]
        self._weights = [weights[part] for part in parts]
        asked = [hash_grams(fold_audit(item.question), measure.loose) for item in items]
        self._asks = [np.isin(own, question) for own, question in zip(self._grams, asked, strict=True)]
        self._spans = [max(LEAST, int(1.5 * len(fold_audit(text)))) for text in texts]

    def look(self, codes: Codes, hashed: Hashes, origins: Numbers, borders: Numbers) -> list[Sighting]:
        """What the texts hold of items that were changed; `hashed` are the runs that begin at `origins` in `codes`."""
        places = np.flatnonzero(self._table[top_bits(hashed, _BITS)])
        where = np.minimum(np.searchsorted(self._runs, hashed[places]), len(self._runs) - 1)
        exact = self._runs[where] == hashed[places]
        places, where = places[exact], where[exact]
        if not len(places):
            return []
        counts = self._starts[where + 1] - self._starts[where]
        first = np.repeat(self._starts[where] - (np.cumsum(counts) - counts), counts)
        items = self._owners[first + np.arange(len(first))]
        at, runs = np.repeat(origins[places], counts), np.repeat(where, counts)
        texts = np.searchsorted(borders, at)
        order = np.lexsort((at, items, texts))
        items, at, runs, texts = items[order], at[order], runs[order], texts[order]
        groups = np.flatnonzero(np.diff(items, prepend=-1) | np.diff(texts, prepend=-1))
        sightings = []
        for begin, end in zip(groups.tolist(), np.append(groups[1:], len(items)).tolist(), strict=True):
            if end - begin >= self._measure.pointers:
                text, item = int(texts[begin]), int(items[begin])
                limits = (int(borders[text - 1]) + 1 if text else 0, int(borders[text]))
                held = self._held(item, codes, at[begin:end], runs[begin:end], limits)
                if held:
                    # What is only retold is for a person to judge; what is nearly whole is dropped.
                    score = held if held >= self._measure.loose_drop else min(held, RETOLD)
                    sightings.append(Sighting(text, item, round(score, 4), "together"))
        return sightings

    def _held(self, item: int, codes: Codes, at: Numbers, runs: Numbers, limits: tuple[int, int]) -> float:
        """The largest weighed share of an item in the stretches to which enough of its runs point."""
        span, best, weighed = self._spans[item], 0.0, -LEAST * 1000
        ends = np.searchsorted(at, at + span, side="right")
        for number, end in enumerate(ends.tolist()):
            # What begins well inside the stretch that was weighed last need not be weighed again.
            if end - number < self._measure.pointers or int(at[number]) < weighed + span // 4:
                continue
            if len(set(runs[number:end].tolist())) < self._measure.pointers:
                continue
            weighed = int(at[number])
            begin = max(int(at[number]) - span // 2, limits[0])
            near = np.unique(
                hash_grams(codes[begin : min(int(at[end - 1]) + span // 2, limits[1])], self._measure.loose)
            )
            held, weights, asks = np.isin(self._grams[item], near), self._weights[item], self._asks[item]
            share, question = _share(weights, held), _share(weights[asks], held[asks])
            if share >= self._measure.loose_review and question >= self._measure.loose_question:
                best = max(best, share)
        return best


def _share(weights: Weights, held: Held) -> float:
    return float(weights[held].sum() / max(float(weights.sum()), 1e-9))
