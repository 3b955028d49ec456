"""Exam items with a short question: found by a rare run of characters, then weighed by the text near it."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from medllm.corpus.decontaminate.exam_items import ExamItem, Match
from medllm.corpus.decontaminate.ngram_index import Numbers
from medllm.corpus.decontaminate.ngrams import Codes, Hashes, fold_audit, hash_each, hash_grams, written
from medllm.corpus.decontaminate.numbering import Numbering, marked
from medllm.corpus.decontaminate.thresholds import Thresholds

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
            questions[number] = np.unique(hash_grams(fold_audit(item.question), measure.near))
            self._options[number] = [written(folded) for option in item.options if len(folded := fold_audit(option))]
            self._spans[number] = max(NEAR, 2 * (len(fold_audit(item.question)) + sum(map(len, self._options[number]))))
        self._anchors = Numbering(np.array(list(owners), np.uint64))
        self._owners = [owners[anchor] for anchor in self._anchors.known.tolist()]
        self._near = Numbering(np.concatenate([np.empty(0, np.uint64), *questions.values()]))
        self._questions = {one: np.searchsorted(self._near.known, hashes) for one, hashes in questions.items()}

    def match(self, codes: Codes, hashed: Hashes, origins: Numbers, borders: Numbers) -> list[Match]:
        """Find the short items in the texts; `hashed` are the runs that begin at `origins` in `codes`."""
        found = list(self._pointed(hashed, origins, borders))
        if not found:
            return []
        # A gram counts as near only if all of it is near.
        ends = [(begin, max(begin, end - self._measure.near + 1)) for _, _, _, (begin, end), _ in found]
        numbers = self._near.along(codes, self._measure.near, ends)
        marks = np.zeros(len(self._near) + 1, np.bool_)
        matches = []
        for (text, number, place, near, limits), (begin, end) in zip(found, ends, strict=True):
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
        places, found = self._anchors.find(hashed)
        places = origins[places]
        texts = np.searchsorted(borders, places)
        looked: dict[tuple[int, int], int] = {}
        for place, anchor, text in zip(places.tolist(), found.tolist(), texts.tolist(), strict=True):
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
        share = _share(options, codes[slice(*near)]) if options else question
        if share >= measure.short_options:
            return (question + share) / 2
        if question < measure.apart_question or len(options) < 2:
            return 0.0
        share = _share(options, codes[slice(*_around(place, APART, limits))])
        return min((question + share) / 2, 0.49) if share >= measure.apart_options else 0.0


def _around(place: int, reach: int, limits: Reach) -> Reach:
    return max(limits[0], place - reach), min(limits[1], place + reach)


def _share(options: Sequence[str], near: Codes) -> float:
    whole = written(near)
    return sum(option in whole for option in options) / len(options)
