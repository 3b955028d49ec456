"""Records in order, more of them than memory holds: sorted runs on disk that are merged as they are read."""

import heapq
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

HELD = 500_000
"""Records that are held in memory before they are written as a run."""
READ = 512
"""Records of each run that are held while the runs are merged."""
Record = tuple[Any, ...]


class Sorter:
    """Takes records in any order and gives them back by their fields, the first field first.

    What it holds does not depend on how many there are: one run while they come, a few of each run while they go.
    """

    def __init__(self, folder: Path, kind: np.dtype[Any]) -> None:
        self._folder = folder
        self._kind = kind
        self._runs: list[Path] = []
        self._held: list[npt.NDArray[Any]] = []
        self._count = 0

    def __enter__(self) -> "Sorter":
        """Begin in an empty folder: what a killed process left there is nobody's."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave nothing on the disk."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, rows: npt.NDArray[Any] | list[Record]) -> None:
        """Take some records in, in any order."""
        self._held.append(np.array(rows, self._kind))
        self._count += len(rows)
        if self._count >= HELD:
            self._write()

    def fill(self, records: Iterator[Record]) -> None:
        """Take all records that come."""
        while rows := list(islice(records, READ)):
            self.add(rows)

    def __iter__(self) -> Iterator[Record]:
        """All records in order."""
        self._write()
        return heapq.merge(*(self._read(run) for run in self._runs))

    def _write(self) -> None:
        if self._count:
            run = self._folder / f"{len(self._runs):06d}"
            rows = np.concatenate(self._held)
            rows[np.lexsort([rows[name] for name in reversed(self._kind.names or ())])].tofile(run)
            self._runs.append(run)
        self._held, self._count = [], 0

    def _read(self, run: Path) -> Iterator[Record]:
        """The records of a run, a few at a time; the file is not kept open, because there may be thousands."""
        for begin in range(0, run.stat().st_size, READ * self._kind.itemsize):
            yield from np.fromfile(run, self._kind, READ, offset=begin).tolist()
