"""External sort of more records than memory holds: sorted runs on disk that are merged as they are read."""

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
"""Number of records held in memory before they are written as a run."""
READ = 512
"""Number of records of each run held in memory while the runs are merged."""
Record = tuple[Any, ...]


class Sorter:
    """External sorter: takes records in any order and returns them by their fields, the first field first.

    Memory does not depend on the number of records: one run during input, a few records of each run during output.
    """

    def __init__(self, folder: Path, kind: np.dtype[Any]) -> None:
        self._folder = folder
        self._kind = kind
        self._runs: list[Path] = []
        self._held: list[npt.NDArray[Any]] = []
        self._count = 0

    def __enter__(self) -> "Sorter":
        """Begin in an empty folder: delete the files of a killed process."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Delete the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, rows: npt.NDArray[Any] | list[Record]) -> None:
        """Add some records, in any order."""
        self._held.append(np.array(rows, self._kind))
        self._count += len(rows)
        if self._count >= HELD:
            self._write()

    def fill(self, records: Iterator[Record]) -> None:
        """Add all records of an iterator."""
        while rows := list(islice(records, READ)):
            self.add(rows)

    def __iter__(self) -> Iterator[Record]:
        """Yield all records in order."""
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
        """Yield the records of a run, a few at a time; close the file in between, because there may be thousands."""
        for begin in range(0, run.stat().st_size, READ * self._kind.itemsize):
            yield from np.fromfile(run, self._kind, READ, offset=begin).tolist()
