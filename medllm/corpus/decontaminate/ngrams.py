"""Japanese text as hashed runs of characters: folded, rolled, numbered and looked up, millions at a time."""

import functools
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.uint32]
Hashes = npt.NDArray[np.uint64]

LENGTH = 13
BORDER = 0x10FFFD
"""A character of the private planes that no text needs: it separates the texts of one batch."""

ALPHABET = 0x250
"""Folded characters below this are letters and digits of an alphabet."""

LAST = 0x32400
"""Above this there are no letters, only private planes and tags."""

_BASE = np.uint64(0x9E3779B97F4A7C15)


class _Folding(NamedTuple):
    """Table of replacements: each character becomes none, one or several others, stored flat."""

    lengths: npt.NDArray[np.uint8]
    starts: npt.NDArray[np.int32]
    written: Codes


@functools.cache
def _folding() -> _Folding:
    """Build NFKC in lower case for every character; drop spaces, punctuation, symbols and accents of Latin letters."""
    lengths, starts = np.zeros(0x110000, np.uint8), np.zeros(0x110000, np.int32)
    written: list[int] = []
    for code in range(LAST):
        if unicodedata.category(chr(code))[0] not in "CZP" or code in _MARKS:
            becomes = [_bare(char) for char in unicodedata.normalize("NFKC", chr(code)).lower() if _counts(char)]
            lengths[code], starts[code] = len(becomes), len(written)
            written += becomes
    lengths[BORDER], starts[BORDER] = 1, len(written)
    return _Folding(lengths, starts, np.array([*written, BORDER], np.uint32))


_MARKS = {0x3099: 1, 0x309A: 2, 0xFF9E: 1, 0xFF9F: 2}
"""The voiced and the half-voiced mark, as they follow a kana of full or half width."""


def _counts(character: str) -> bool:
    return unicodedata.category(character)[0] in "LN" or ord(character) in _MARKS


def _bare(character: str) -> int:
    """Remove the accent of a Latin letter: Sjögren and Sjogren are one name; が stays が."""
    first = unicodedata.normalize("NFD", character)[0]
    return ord(first if ord(character) < 0x2000 and ord(first) < 0x2000 else character)


@functools.cache
def _voiced() -> npt.NDArray[np.uint32]:
    """Return the kana that a kana and one of the two marks make; 0 where they make none."""
    table = np.zeros((3, 0x10000), np.uint32)
    for code in range(0x3041, 0x30FF):
        for mark, sign in ((1, "\u3099"), (2, "\u309a")):
            made = unicodedata.normalize("NFC", chr(code) + sign)
            table[mark, code] = ord(made) if len(made) == 1 else 0
    return table


_OLD = "國學醫體點應對變處發藥榮營檢查劑濟證據實數來狀壓臟號腦區當關觀齒鹽氣總擔團圖圓圍轉傳效輕經濱澤驛廣續讀賣"
_NEW = "国学医体点応対変処発薬栄営検査剤済証拠実数来状圧臓号脳区当関観歯塩気総担団図円囲転伝効軽経浜沢駅広続読売"
_ALIKE = {
    "口": "ろ",
    "力": "か",
    "二": "に",
    "夕": "た",
    "八": "は",
    "工": "え",
    "卜": "と",
    "一": "ー",
}
"""Kanji that a scanner takes for a kana of the same shape."""


@functools.cache
def _alike() -> Codes:
    """Map each character to its form in the audit: kana of one kind, kanji of one age, shapes alike."""
    table = np.arange(0x10000, dtype=np.uint32)
    table[0x30A1:0x30F7] -= 0x60
    for old, new in (*zip(_OLD, _NEW, strict=True), *_ALIKE.items()):
        table[ord(old)] = ord(new)
    return table


def unite(codes: Codes) -> Codes:
    """Replace katakana by hiragana, old kanji by new ones, and shapes that look alike by one sign."""
    table = _alike()
    united: Codes = np.where(codes < 0x10000, table[np.minimum(codes, 0xFFFF)], codes)
    return united


def fold_audit(text: str) -> Codes:
    """Fold a text as the audit compares it."""
    return unite(fold(text))


@functools.lru_cache(maxsize=2)
def fold(text: str) -> Codes:
    r"""Return the characters that count, after NFKC and in lower case: ｶﾞﾝ and ガン, 100 ㎎ and 100mg become one.

    A table replaces the library's own normalisation, which took a third of the whole audit. The last results are kept,
    because a text is folded for its hash and again for its signature.

    >>> "".join(map(chr, fold("ｶﾞﾝ（ＣＡ 19-9）は\n㎎単位で高値。")))
    'ガンca199はmg単位で高値'
    """
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.dtype("<u4"))
    folding = _folding()
    lengths = folding.lengths[codes]
    kept = lengths > 0
    codes, lengths = codes[kept], lengths[kept]
    starts = folding.starts[codes]
    if len(lengths) and lengths.max() > 1:
        lengths = lengths.astype(np.int64)
        ends = np.cumsum(lengths)
        starts = np.repeat(starts - (ends - lengths), lengths) + np.arange(ends[-1])
    folded = folding.written[starts]
    return np.delete(folded, _compose(folded))


def written(codes: Codes) -> str:
    """Return folded characters as a string."""
    return codes.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")


def fold_places(text: str) -> tuple[Codes, npt.NDArray[np.int64]]:
    """Return the folded characters, and for each its place in the original text."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.dtype("<u4"))
    lengths = _folding().lengths[codes].astype(np.int64)
    places = np.repeat(np.arange(len(codes)), lengths)
    within = np.arange(len(places)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    folded = _folding().written[_folding().starts[codes[places]] + within]
    marks = _compose(folded)
    return unite(np.delete(folded, marks)), np.delete(places, marks)


def _compose(codes: Codes) -> npt.NDArray[np.int64]:
    """Join each kana and the voiced mark that follows it, in place; return the marks to remove."""
    marked = np.flatnonzero((codes == 0x3099) | (codes == 0x309A))
    if not len(marked):
        return marked
    follows = marked[marked > 0]
    before = codes[follows - 1]
    made = _voiced()[np.where(codes[follows] == 0x3099, 1, 2), np.where(before < 0x10000, before, 0)]
    codes[(follows - 1)[made > 0]] = made[made > 0]
    return marked


def fold_all(texts: list[str]) -> Codes:
    """Fold all texts into one array, each followed by a border that no gram of an exam holds."""
    border = chr(BORDER)
    return unite(fold("".join(text.replace(border, " ") + border for text in texts)))


def hash_each(texts: list[str], length: int) -> tuple[Hashes, npt.NDArray[np.int64]]:
    """Return the distinct hashes of every text in one array, and the number of the text of each; sorted by text."""
    codes = fold_all(texts)
    hashed = hash_grams(codes, length)
    borders = np.flatnonzero(codes == BORDER)
    places = np.arange(len(hashed))
    owners = np.searchsorted(borders, places)
    whole = places + length <= borders[owners]
    hashed, owners = hashed[whole], owners[whole]
    kept = np.unique(paired(hashed, owners), return_index=True)[1]
    kept.sort()
    return hashed[kept], owners[kept]


def paired(hashed: Hashes, numbers: npt.NDArray[np.int64]) -> Hashes:
    """Return one number for each pair of hash and number, as unlikely to collide as the hashes are."""
    with np.errstate(over="ignore"):
        return _spread(hashed ^ (numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)))


def hash_grams(codes: Codes, length: int = LENGTH) -> Hashes:
    """Return a 64-bit hash for every run of `length` characters, in order; empty when there are too few."""
    return hash_both(codes, length, length)[0]


def hash_both(codes: Codes, length: int, part: int) -> tuple[Hashes, Hashes]:
    """Return the hashes of all runs of `length` and `part` characters; `part` is a power of two or `length` itself.

    The polynomial of a long run is combined from those of its halves, so 13 characters cost six passes and not 13,
    and the runs of 8 are a by-product.
    """
    count = max(len(codes) - length + 1, 0)
    with np.errstate(over="ignore"):
        power, block, width, done = _BASE, codes.astype(np.uint64), 1, 0
        hashed, halves = np.zeros(count, np.uint64), np.empty(0, np.uint64)
        while True:
            if width == part:
                halves = _spread(block)
            if length & width and count:
                hashed *= power
                hashed += block[done : done + count]
                done += width
            if width * 2 > length:
                return _spread(hashed), halves
            block = block[:-width] * power + block[width:]
            power = power * power
            width *= 2


def _spread(hashed: Hashes) -> Hashes:
    """Mix the low bits into the high ones that `top_bits` reads; a bijection, so it adds no collision."""
    return (hashed ^ (hashed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)


def top_bits(hashes: Hashes, bits: int) -> npt.NDArray[np.int64]:
    """Return the first `bits` bits of each hash: a place in a table."""
    return (hashes >> np.uint64(64 - bits)).view(np.int64)


Whole = TypeVar("Whole", np.uint64, np.int64)
Places = npt.NDArray[np.int64]
Marks = npt.NDArray[np.bool_]


def distinct_values(values: npt.NDArray[Whole]) -> npt.NDArray[Whole]:
    """Return the different values of an array in ascending order, as `np.unique` does, by a sort.

    numpy 2.4 takes a hash table for whole numbers, and 38 times as long for a million hashes.

    >>> distinct_values(np.array([3, 1, 3], np.uint64)).tolist()
    [1, 3]
    """
    ordered = np.sort(values)
    new = np.ones(len(ordered), np.bool_)
    new[1:] = ordered[1:] != ordered[:-1]
    return ordered[new]


def among(values: npt.NDArray[Whole], known: npt.NDArray[Whole]) -> Marks:
    """Mark the values that are among the known ones, as `np.isin` does, whose `np.unique` is slow.

    >>> among(np.array([1, 2, 9], np.uint64), np.array([9, 1, 9], np.uint64)).tolist()
    [True, False, True]
    """
    ordered = distinct_values(known)
    if not len(ordered):
        return np.zeros(len(values), np.bool_)
    present: Marks = ordered[np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)] == values
    return present


SPARSE = 3
"""At most one of 2**SPARSE places of the table is taken."""


class Numbering:
    """A set of hashes in ascending order; the place of a hash in it is its number."""

    def __init__(self, hashes: Hashes) -> None:
        self.known: Hashes = distinct_values(hashes)
        self._bits = bits = len(self.known).bit_length() + SPARSE
        self._starts = np.searchsorted(top_bits(self.known, bits), np.arange((1 << bits) + 1)).astype(np.int32)
        sizes = np.diff(self._starts)
        self._taken = sizes > 0
        self._deepest = int(sizes.max())

    def __len__(self) -> int:
        return len(self.known)

    def find(self, hashed: Hashes) -> tuple[Places, Places]:
        """Return the places of the given hashes that are known, ascending, and the number of each.

        >>> numbering = Numbering(np.array([7 << 60, 3 << 60, 4], np.uint64))
        >>> numbering.find(np.array([5, 4, 3 << 60], np.uint64))
        (array([1, 2]), array([0, 1]))
        """
        tops = top_bits(hashed, self._bits)
        # Most hashes of most texts are unknown: a table of bytes shows that first.
        left = np.flatnonzero(self._taken[tops])
        tops = tops[left]
        at, ends, wanted = self._starts[tops], self._starts[tops + 1], hashed[left]
        places, numbers = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for _ in range(self._deepest):
            same = self.known[at] == wanted
            places.append(left[same])
            numbers.append(at[same].astype(np.int64))
            more = np.flatnonzero(~same & (at + 1 < ends))
            left, at, ends, wanted = left[more], at[more] + 1, ends[more], wanted[more]
        positions, numbered = np.concatenate(places), np.concatenate(numbers)
        order = np.argsort(positions, kind="stable")
        return positions[order], numbered[order]

    def along(self, codes: Codes, length: int, stretches: Sequence[tuple[int, int]]) -> Places:
        """Return for each place of the codes the number of the gram that begins there; `len(self)` where none is known.

        Only places in the stretches (first place, one past the last) are looked up, and each place once.
        """
        edges = np.zeros(len(codes) + 1, np.int64)
        np.add.at(edges, [begin for begin, _ in stretches], 1)
        np.add.at(edges, [end for _, end in stretches], -1)
        hashed = hash_grams(codes, length)
        inside = np.flatnonzero(np.cumsum(edges[: len(hashed)]))
        places, gram_numbers = self.find(hashed[inside])
        numbers = np.full(len(codes), len(self), np.int64)
        numbers[inside[places]] = gram_numbers
        return numbers


def marked(marks: Marks, near: Places, wanted: Places) -> Marks:
    """Return which of the wanted numbers are near; `marks`, one more than the numbers, are off before and after."""
    marks[near] = True
    marks[-1] = False
    chosen: Marks = marks[wanted]
    marks[near] = False
    return chosen
