"""Connected components of texts that share buckets: a union-find on disk, because it is as large as the corpus."""

import mmap
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

STEP = 50_000
"""Pairs to join, or texts to look up, before the touched pages are released."""
Numbers = npt.NDArray[np.int64]


class DisjointSets:
    """A forest of text numbers, counted over all tasks; joined texts have the smallest number among them as root.

    datatrove's own step holds some hundred bytes of Python objects for each text in memory. Here a text without a
    duplicate is a hole in a sparse file, and a joined one takes eight bytes on disk.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._size = size

    def __enter__(self) -> "DisjointSets":
        """Open an empty forest: every text is its own root, which is written as 0."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("wb") as stream:
            stream.truncate(max(self._size, 1) * 8)
        self._stream = self._path.open("r+b")
        self._map = mmap.mmap(self._stream.fileno(), 0)
        self._above = memoryview(self._map).cast("q")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Delete the file."""
        self._above.release()
        self._map.close()
        self._stream.close()
        self._path.unlink()

    def join(self, pairs: Numbers) -> None:
        """Join the texts of each pair."""
        for begin in range(0, len(pairs), STEP):
            for one, other in pairs[begin : begin + STEP].tolist():
                low, high = sorted((self._root(one), self._root(other)))
                if low != high:
                    self._above[high] = low + 1
            self._let_go()

    def joined(self) -> Iterator[Numbers]:
        """Yield root and number of every text that is not its own root, some at a time."""
        for begin in range(0, self._size, STEP):
            above = np.array(self._above[begin : begin + STEP])
            numbers = np.flatnonzero(above) + begin
            if len(numbers):
                yield np.array([[self._root(number), number] for number in numbers.tolist()])
            self._let_go()

    def _root(self, number: int) -> int:
        above = self._above
        while higher := above[number]:
            # Every other text on the path moves one level up, so that paths stay short.
            if highest := above[higher - 1]:
                above[number] = highest
            number = higher - 1
        return number

    def _let_go(self) -> None:
        """Release the pages: they stay in the system's cache while it has room, but do not count as this process's."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


def pairs(folder: Path, offsets: Numbers) -> Iterator[Numbers]:
    """Yield the pairs that datatrove's buckets found, as numbers counted over all tasks."""
    kind = np.dtype([("task", "<u4"), ("place", "<u4"), ("other_task", "<u4"), ("other_place", "<u4")])
    for path in sorted(folder.glob("*.dups")):
        for begin in range(0, path.stat().st_size, STEP * kind.itemsize):
            rows: npt.NDArray[Any] = np.fromfile(path, kind, STEP, offset=begin)
            yield np.column_stack(
                [
                    offsets[rows["task"]] + rows["place"],
                    offsets[rows["other_task"]] + rows["other_place"],
                ]
            )
