"""The containment of each held-out exam item in a text without its markup, in any order of options; the verdict."""

import functools
import html
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from medllm.corpus.decontaminate.exam_items import ALPHABETIC, JAPANESE, ExamItem, Match, Thresholds, distinct
from medllm.corpus.decontaminate.ngram_index import NgramIndex, Numbers, Windows
from medllm.corpus.decontaminate.ngrams import ALPHABET, BORDER, Codes, fold_all, hash_both
from medllm.corpus.decontaminate.partial_questions import ChangedQuestions, ShortQuestions

Places = npt.NDArray[np.int64]

_ESCAPE = re.compile(r"\\+u(?:([dD][89abAB][0-9a-fA-F]{2})\\+u([dD][c-fC-F][0-9a-fA-F]{2})|([0-9a-fA-F]{4}))")
"""One character, or the two halves of one beyond the first plane."""
_ENTITY = re.compile(r"&(?:#[0-9]+;?|#[xX][0-9a-fA-F]+;?|[^\t\n\f <&#;]{1,32};?)")
_LINE_ESCAPE = re.compile(r"\\+[nrt](?![a-zA-Z])")
_RUBY = re.compile(r"<rp\b[^<>]*>.*?</rp\s*>|<rt\b[^<>]*>[^<]*(?:</rt\s*>)?", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"</?[A-Za-z][^<>]{0,200}>|<!--.{0,500}?-->", re.DOTALL)
_READING = re.compile(r"[(（《〈\[［【｛{](?<=[一-龥々〆ヶ].)[ぁ-ゖァ-ヺー・･ 　]{1,24}[)）》〉\]］】｝}]")
"""Kana in brackets right after a kanji; the pattern begins with the bracket, so that the search jumps to it."""


def _character(match: re.Match[str]) -> str:
    if match[1]:
        return chr(0x10000 + ((int(match[1], 16) & 0x3FF) << 10) + (int(match[2], 16) & 0x3FF))
    code = int(match[3], 16)
    return "\ufffd" if 0xD800 <= code < 0xE000 else chr(code)


def _entity(match: re.Match[str]) -> str:
    return html.unescape(match[0])


_STEPS: tuple[tuple[str, re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    ("\\", _ESCAPE, _character),
    ("\\", _LINE_ESCAPE, lambda _: "\n"),
    ("&", _ENTITY, _entity),
    ("&", _ENTITY, _entity),  # a page that was escaped twice
    ("<", _RUBY, lambda _: ""),
    ("<", _TAG, lambda _: ""),
    ("", _READING, lambda _: ""),
)
"""Replacements in this order, each for texts that contain the sign in front."""


def reveal(text: str) -> str:
    r"""Return the text as a reader sees it: without markup, escapes of characters, and readings behind kanji.

    >>> reveal("<b>虫垂炎</b>（ちゅうすいえん）で&nbsp;\\u8aa4るのはどれか")
    '虫垂炎で\xa0誤るのはどれか'
    """
    for sign, pattern, become in _STEPS:
        if sign in text:
            text = pattern.sub(become, text)
    return text


def reveal_places(text: str) -> tuple[str, Places, Places]:
    """Return the text as a reader sees it, and where each of its characters begins and ends in the original text.

    >>> shown, begins, ends = reveal_places("<b>&lt;</b>値")
    >>> shown, begins.tolist(), ends.tolist()
    ('<値', [3, 11], [7, 12])
    """
    begins = np.arange(len(text))
    ends = begins + 1
    for sign, pattern, become in _STEPS:
        matches = list(pattern.finditer(text)) if sign in text else []
        if not matches:
            continue
        pieces: list[str] = []
        first: list[Places] = []
        last: list[Places] = []
        at = 0
        for match in matches:
            new = become(match)
            pieces += [text[at : match.start()], new]
            first += [begins[at : match.start()], np.full(len(new), begins[match.start()])]
            last += [ends[at : match.start()], np.full(len(new), ends[match.end() - 1])]
            at = match.end()
        text = "".join((*pieces, text[at:]))
        begins, ends = np.concatenate([*first, begins[at:]]), np.concatenate([*last, ends[at:]])
    return text, begins, ends


Verdict = Literal["drop", "review"]

DROP = 0.5
REVIEW = 0.3
WINDOW = 4096
"""Folded characters searched together, so that a textbook is not flagged for stock phrases on different pages."""


@dataclass(frozen=True)
class Matches:
    """Matches of the exam in one batch of texts."""

    flagged: list[Match]
    """Every document and item at or over the threshold, the largest containment of each."""
    largest: list[Match]
    """For each item with any trace, the text with the largest one, however small."""


def verdict(containment: float, *, drop: float = DROP, review: float = REVIEW) -> Verdict | None:
    """Return the verdict on a containment: dropped from a half, reviewed by a person from 0.3."""
    return "drop" if containment >= drop else "review" if containment >= review else None


class ExamIndex:
    """Index of the held-out items; it searches millions of characters a second.

    The index holds the grams of the exam and nothing of the texts: memory does not grow with the corpus.
    """

    def __init__(self, items: Iterable[ExamItem], *, window: int = WINDOW, floor: float = REVIEW) -> None:
        self.items = distinct(items)
        plain = [
            replace(item, question=reveal(item.question), options=tuple(map(reveal, item.options)))
            for item in self.items
        ]
        self.floor = floor
        longest = int(np.diff(np.flatnonzero(fold_all([item.text for item in plain]) == BORDER), prepend=-1).max())
        # A window steps by half its length, so one window holds the whole of any stretch no longer than the step.
        step = max(window // 2, longest)
        alphabetic = [item.alphabetic for item in plain]
        self._scripts = [
            _Script(plain, [n for n, is_so in enumerate(alphabetic) if is_so == wanted], measure, step)
            for wanted, measure in ((False, JAPANESE), (True, ALPHABETIC))
            if wanted in alphabetic
        ]

    @property
    def unsearchable(self) -> list[str]:
        """List the items so short that no text can be cleared of them."""
        return [name for script in self._scripts for name in script.short.unsearchable]

    def match(self, texts: Sequence[str]) -> Matches:
        """Match the whole batch of texts at once; some 100,000 characters a batch are fastest."""
        codes = fold_all([reveal(text) for text in texts])
        pairs: dict[tuple[int, int], Match] = {}
        largest: dict[int, Match] = {}
        for script in self._scripts:
            for seen in script.match(codes, self.floor):
                if seen.containment >= self.floor and _before(seen, pairs.get((seen.document, seen.item))):
                    pairs[seen.document, seen.item] = seen
                if _before(seen, largest.get(seen.item)):
                    largest[seen.item] = seen
        return Matches([pairs[key] for key in sorted(pairs)], [largest[key] for key in sorted(largest)])


class _Script:
    """The items of one script, with the grams that suit it."""

    def __init__(self, items: Sequence[ExamItem], numbers: list[int], measure: Thresholds, step: int) -> None:
        own = [items[number] for number in numbers]
        self._numbers = numbers
        self._measure = measure
        self._step = step
        self._grams = NgramIndex(own, measure)
        brief = self._grams.counts[:, 0] < measure.question_apart
        # In an alphabet too many runs of 16 letters are common phrases: this step would cost more than all others.
        self._noisy = ChangedQuestions(own, measure) if measure is JAPANESE else None
        self.short = ShortQuestions(own, np.flatnonzero(brief).tolist(), measure)

    def match(self, codes: Codes, floor: float) -> list[Match]:
        windows = Windows(np.flatnonzero(codes == BORDER), self._step)
        places, written = self._places(codes)
        hashed, anchors = hash_both(written, self._measure.length, self._measure.anchor)
        seen = self._grams.match(hashed, places, windows, floor)
        seen += self.short.match(codes, anchors, places, windows.borders)
        if self._noisy:
            seen += self._noisy.match(codes, anchors, places, windows.borders)
        return [match._replace(item=self._numbers[match.item]) for match in seen]

    def _places(self, codes: Codes) -> tuple[Numbers, Codes]:
        """Return the places worth a search: those of an alphabet's long grams are in long rows of letters."""
        if self._measure is not ALPHABETIC:
            return np.arange(len(codes)), codes
        rows, length = np.cumsum(np.append(0, codes < ALPHABET), dtype=np.int64), self._measure.length
        dense = np.flatnonzero(rows[length:] - rows[:-length] >= 0.5 * length)
        edges = np.zeros(len(codes) + 1, np.int64)
        np.add.at(edges, dense, 1)
        np.add.at(edges, np.minimum(dense + length, len(codes)), -1)
        places = np.flatnonzero(np.cumsum(edges[:-1]))
        return places, codes[places]


def _before(seen: Match, other: Match | None) -> bool:
    """Return whether a match ranks first: larger containment, then earlier document, whatever the order of work."""
    return other is None or (-seen.containment, seen.document) < (-other.containment, other.document)


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
            for match in matches:
                number = part[match.document][0]
                known = results[number][place].get(match.item)
                if known is None or match.containment > known.containment:
                    results[number][place][match.item] = match._replace(document=number)
    return [(list(flagged.values()), list(largest.values())) for flagged, largest in results]


def _starts(text: str) -> range:
    return range(0, max(len(text) - OVERLAP, 1), SLICE)
