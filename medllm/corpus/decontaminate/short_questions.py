"""Exam items with a short question: found by a rare run of characters, then weighed by what stands near it."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from medllm.corpus.decontaminate.exam_items import Item, Sighting
from medllm.corpus.decontaminate.ngram_index import Numbers
from medllm.corpus.decontaminate.ngrams import Codes, Hashes, fold_audit, hash_each, hash_grams, top_bits
from medllm.corpus.decontaminate.thresholds import Measure

NEAR = 150
"""Folded characters looked at on each side of an anchor, at the least."""
APART = 6000
"""Folded characters on each side of a question in which its options may be, each with a commentary."""
_BITS = 20


class ShortItems:
    """Items whose question is too short to be told from a stock phrase: its options must stand beside it."""

    def __init__(self, items: Sequence[Item], numbers: Sequence[int], measure: Measure) -> None:
        self._measure = measure
        self._spans: dict[int, int] = {}
        self._questions: dict[int, set[int]] = {}
        self._options: dict[int, list[str]] = {}
        self._owners: dict[int, list[int]] = {}
        self.unsearchable: list[str] = []
        """Items without a run long enough to be found by: said aloud, because no text can be cleared of them."""
        runs, of = hash_each([item.question for item in items], measure.anchor)
        common = Counter(runs.tolist())
        for number in numbers:
            item = items[number]
            question = runs[np.searchsorted(of, number) : np.searchsorted(of, number, "right")]
            if not len(question):
                self.unsearchable.append(item.name)
                continue
            for gram in sorted(question.tolist(), key=lambda gram: (common[gram], gram))[:2]:
                self._owners.setdefault(gram, []).append(number)
            self._questions[number] = set(hash_grams(fold_audit(item.question), measure.near).tolist())
            self._options[number] = [_written(folded) for option in item.options if len(folded := fold_audit(option))]
            self._spans[number] = max(NEAR, 2 * (len(fold_audit(item.question)) + sum(map(len, self._options[number]))))
        self._anchors = np.array(sorted(self._owners), np.uint64)
        self._table = np.zeros(1 << _BITS, np.bool_)
        self._table[top_bits(self._anchors, _BITS)] = True

    def look(self, codes: Codes, hashed: Hashes, origins: Numbers, borders: Numbers) -> list[Sighting]:
        """What the texts hold of the short items; `hashed` are the runs that begin at `origins` in `codes`."""
        places = np.flatnonzero(self._table[top_bits(hashed, _BITS)])
        places = places[np.isin(hashed[places], self._anchors)]
        grams, places = hashed[places], origins[places]
        texts = np.searchsorted(borders, places)
        sightings = []
        looked: dict[tuple[int, int], int] = {}
        for place, gram, text in zip(places.tolist(), grams.tolist(), texts.tolist(), strict=True):
            for number in self._owners[gram]:
                # What lies well inside the stretch that was weighed last need not be weighed again.
                if place < looked.get((text, number), 0):
                    continue
                looked[text, number] = place + self._spans[number] // 4
                limits = int(borders[text - 1]) + 1 if text else 0, int(borders[text])
                held = self._weigh(number, codes, place, limits)
                if held:
                    sightings.append(Sighting(text, number, round(held, 4), "together"))
        return sightings

    def _weigh(self, number: int, codes: Codes, place: int, limits: tuple[int, int]) -> float:
        """The mean of how much of the question and how many of the options stand there; 0 when either is too little.

        Options are looked for near the question first. Where nearly all of the question is there, most of its options
        may be anywhere around it, as in a commentary on each; that is for a person to judge.
        """
        wanted, options, measure = self._questions[number], self._options[number], self._measure
        near = _around(codes, place, self._spans[number], limits)
        question = len(wanted.intersection(hash_grams(near, measure.near).tolist())) / len(wanted)
        if question < measure.short_question:
            return 0.0
        share = _share(options, near) if options else question
        if share >= measure.short_options:
            return (question + share) / 2
        if question < measure.apart_question or len(options) < 2:
            return 0.0
        share = _share(options, _around(codes, place, APART, limits))
        return min((question + share) / 2, 0.49) if share >= measure.apart_options else 0.0


def _around(codes: Codes, place: int, reach: int, limits: tuple[int, int]) -> Codes:
    return codes[max(limits[0], place - reach) : min(limits[1], place + reach)]


def _share(options: Sequence[str], near: Codes) -> float:
    written = _written(near)
    return sum(option in written for option in options) / len(options)


def _written(codes: Codes) -> str:
    return codes.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")
