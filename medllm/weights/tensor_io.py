"""A checkpoint's tensors, read and written some rows at a time: memory grows with neither tensor nor shard."""

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from math import ceil
from pathlib import Path
from typing import BinaryIO

import torch

from medllm.errors import ModelError
from medllm.weights.checkpoint import Tensor, read_header

DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "F64": torch.float64}
NUMBERS_AT_ONCE = 2**18
"""Numbers of a tensor held at a time: the intermediate result of two products fits into the processor's cache."""
WAITING = 16
"""How many slices may be made or wait for the disk at a time; a further one is not read before."""
SENT_BYTES = 2**25
"""Bytes after which the system must begin to write: by default it gathers gigabytes, and the disk idles meanwhile."""
LEAST_ROWS = 64
"""A product of one or two rows is summed in another order than that of many, and would differ in the last bit."""


@dataclass(frozen=True)
class TensorSource:
    """A shard that is read, not mapped: the pages of a mapped file count as this process's until another needs them."""

    file: BufferedReader
    start: int

    def parts(self, tensor: Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
        """Some rows of a tensor at a time; bytes where we do not know the kind of number."""
        if not tensor.size:
            return
        count = tensor.shape[0] if tensor.shape else 1
        self.file.seek(self.start + tensor.begin)
        for rows in _slices(count, count_of(tensor)):
            read = torch.empty(tensor.size // count * (rows.stop - rows.start), dtype=torch.uint8)
            if self.file.readinto(memoryview(read.numpy())) != len(read):
                raise ModelError(
                    "weights.cut-off",
                    f"{self.file.name}: the file became shorter during reading. Download or make it again.",
                )
            kind = DTYPES.get(tensor.dtype)
            yield rows, read if kind is None else read.view(kind).view(-1, *tensor.shape[1:])


def parts_of(whole: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """Some rows at a time of a tensor that is in memory, in the same slices as one that is read."""
    for rows in _slices(len(whole), whole.numel()):
        yield rows, whole[rows]


def _slices(count: int, numbers: int) -> Iterator[slice]:
    """Which rows of `count`, with so many numbers in all, make a slice: all of one size, so none is too small."""
    most = max(LEAST_ROWS, NUMBERS_AT_ONCE * count // max(1, numbers))
    step = ceil(count / ceil(count / most))
    for begin in range(0, count, step):
        yield slice(begin, min(begin + step, count))


@contextmanager
def open_tensors(shard: Path) -> Iterator[TensorSource]:
    """Open a shard for as long as it is read."""
    with shard.open("rb") as file:
        yield TensorSource(file, read_header(shard)[2])


class Sink:
    """A file that a thread of its own writes, in order, while further slices are made."""

    def __init__(self, file: BinaryIO, thread: ThreadPoolExecutor) -> None:
        self._file, self._thread = file, thread
        self._waiting: deque[Future[None]] = deque()
        self._sent = 0

    def append(self, data: bytes | Future[torch.Tensor]) -> None:
        """Take bytes, or a slice that is still being made; its errors are raised at a later call."""
        self._waiting.append(self._thread.submit(self._write, data))
        self.wait(WAITING)

    def wait(self, most: int = 0) -> None:
        """Return when no more than so many slices wait."""
        while len(self._waiting) > most:
            self._waiting.popleft().result()

    def _write(self, data: bytes | Future[torch.Tensor]) -> None:
        # A tensor is written as bytes: numpy has no bfloat16.
        whole = data if isinstance(data, bytes) else data.result().contiguous().view(-1).view(torch.uint8).numpy().data
        self._file.write(whole)
        at = self._file.tell()
        if at - self._sent >= SENT_BYTES and hasattr(os, "posix_fadvise"):
            self._file.flush()
            os.posix_fadvise(self._file.fileno(), self._sent, at - self._sent, os.POSIX_FADV_DONTNEED)
            self._sent = at


@contextmanager
def write_tensors(path: Path) -> Iterator[Sink]:
    """Open a file to be written; when the block ends it is whole on the disk, a loss of power later included."""
    with path.open("wb") as file, ThreadPoolExecutor(1) as thread:
        sink = Sink(file, thread)
        yield sink
        sink.wait()
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def workers() -> Iterator[ThreadPoolExecutor]:
    """Make threads, each of which computes alone: a slice is too small for several cores to share."""
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(threads)


def count_of(tensor: Tensor) -> int:
    """How many numbers a tensor has."""
    count = 1
    for size in tensor.shape:
        count *= size
    return count
