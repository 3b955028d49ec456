"""Exam items with a short question: found by a rare run of characters, then weighed by what stands near it."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from medllm.corpus.grams import Codes, Hashes, fold, hash_each, hash_grams, top_bits
from medllm.corpus.index import Numbers
from medllm.corpus.items import Item, Sighting
from medllm.corpus.measure import Measure

NEAR = 150
"""Folded characters looked at on each side of an anchor, at the least."""
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
            self._questions[number] = set(hash_grams(fold(item.question), measure.near).tolist())
            self._options[number] = [_written(folded) for option in item.options if len(folded := fold(option))]
            self._spans[number] = max(NEAR, 2 * (len(fold(item.question)) + sum(map(len, self._options[number]))))
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
                begin = max(int(borders[text - 1]) + 1 if text else 0, place - self._spans[number])
                held = self._weigh(number, codes[begin : min(int(borders[text]), place + self._spans[number])])
                if held:
                    sightings.append(Sighting(text, number, round(held, 4), "together"))
        return sightings

    def _weigh(self, number: int, near: Codes) -> float:
        """The mean of how much of the question and how many of the options stand there; 0 when either is too little."""
        wanted, options = self._questions[number], self._options[number]
        question = len(wanted.intersection(hash_grams(near, self._measure.near).tolist())) / len(wanted)
        if question < self._measure.short_question:
            return 0.0
        written = _written(near)
        share = sum(option in written for option in options) / len(options) if options else question
        return (question + share) / 2 if share >= self._measure.short_options else 0.0


def _written(codes: Codes) -> str:
    return codes.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")
