"""Recognises the libraries' different errors for a full memory or a full disk."""

import errno
import re
from collections.abc import Iterator

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# safetensors gives the system's error number in its text; torch.save reports only that its file ended too early.
DISK = re.compile(r"\(os error (27|28|122)\)|No space left on device|enforce fail at inline_container")
MEMORY = re.compile(r"out of memory|can't allocate memory", re.IGNORECASE)


def memory_is_full(fault: BaseException) -> bool:
    """Return whether the memory of a device or of the machine is exhausted.

    >>> memory_is_full(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."))
    True
    """
    return any(
        isinstance(one, MemoryError) or (isinstance(one, RuntimeError) and MEMORY.search(str(one)))
        for one in _chain(fault)
    )


def disk_is_full(fault: BaseException) -> bool:
    """Return whether a file could not be written whole: the disk, the quota or the file size limit was reached.

    >>> disk_is_full(OSError(errno.ENOSPC, "No space left on device")), disk_is_full(FileNotFoundError("a"))
    (True, False)
    """
    return any(one.errno in FULL if isinstance(one, OSError) else bool(DISK.search(str(one))) for one in _chain(fault))


def _chain(fault: BaseException | None) -> Iterator[BaseException]:
    """Yield the error and its causes: libraries wrap the system's error in another one."""
    while fault is not None:
        yield fault
        fault = fault.__cause__ or (None if fault.__suppress_context__ else fault.__context__)
