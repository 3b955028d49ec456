"""Hashes numbered in order, so that a table lookup, not a search, finds those that a text contains."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from medllm.corpus.decontaminate.ngrams import Codes, Hashes, hash_grams, top_bits

Places = npt.NDArray[np.int64]
Marks = npt.NDArray[np.bool_]
SPARSE = 3
"""At most one of 2**SPARSE places of the table is taken."""


class Numbering:
    """A set of hashes in ascending order; the place of a hash in it is its number."""

    def __init__(self, hashes: Hashes) -> None:
        self.known: Hashes = np.unique(hashes)
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
        found, numbered = np.concatenate(places), np.concatenate(numbers)
        order = np.argsort(found, kind="stable")
        return found[order], numbered[order]

    def along(self, codes: Codes, length: int, stretches: Sequence[tuple[int, int]]) -> Places:
        """Return for each place of the codes the number of the gram that begins there; `len(self)` where none is known.

        Only places in the stretches (first place, one past the last) are looked up, and each place once.
        """
        edges = np.zeros(len(codes) + 1, np.int64)
        np.add.at(edges, [begin for begin, _ in stretches], 1)
        np.add.at(edges, [end for _, end in stretches], -1)
        hashed = hash_grams(codes, length)
        inside = np.flatnonzero(np.cumsum(edges[: len(hashed)]))
        places, found = self.find(hashed[inside])
        numbers = np.full(len(codes), len(self), np.int64)
        numbers[inside[places]] = found
        return numbers


def marked(marks: Marks, near: Places, wanted: Places) -> Marks:
    """Return which of the wanted numbers are near; `marks`, one more than the numbers, are off before and after."""
    marks[near] = True
    marks[-1] = False
    found: Marks = marks[wanted]
    marks[near] = False
    return found
