"""A checkpoint's tensors, some rows at a time, by plain reads: memory grows with neither tensor nor shard."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import BinaryIO

import torch

from medllm.weights.checkpoint import Tensor, read_header

DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "F64": torch.float64}
NUMBERS_AT_ONCE = 2**18
"""How many numbers of a tensor are held at a time: what stands between two products fits into the processor's cache."""
LEAST_ROWS = 64
"""A product of one or two rows is summed in another order than that of many, and would differ in the last bit."""


@dataclass(frozen=True)
class Source:
    """A shard that is read, not mapped: the pages of a mapped file count as ours until somebody else needs them."""

    file: BinaryIO
    start: int

    def parts(self, tensor: Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
        """Some rows of a tensor at a time; bytes where we do not know the kind of number."""
        count = tensor.shape[0] if tensor.shape else 1
        if not tensor.size:
            return
        most = max(LEAST_ROWS, NUMBERS_AT_ONCE * count // max(1, count_of(tensor)))
        step = ceil(count / ceil(count / most))  # slices of one size: none is left over that is too small
        self.file.seek(self.start + tensor.begin)
        for begin in range(0, count, step):
            rows = slice(begin, min(begin + step, count))
            read = bytearray(self.file.read(tensor.size // count * (rows.stop - rows.start)))
            kind = DTYPES.get(tensor.dtype)
            if kind is None:
                yield rows, torch.frombuffer(read, dtype=torch.uint8)
            else:
                yield rows, torch.frombuffer(read, dtype=kind).view(-1, *tensor.shape[1:])


@contextmanager
def opened(shard: Path) -> Iterator[Source]:
    """Open a shard for as long as it is read."""
    with shard.open("rb") as file:
        yield Source(file, read_header(shard)[2])


def count_of(tensor: Tensor) -> int:
    """How many numbers a tensor has."""
    count = 1
    for size in tensor.shape:
        count *= size
    return count
