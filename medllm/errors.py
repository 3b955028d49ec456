"""The expected errors of medllm, each with a stable code and a text that names the place, the cause and the remedy.

    MedllmError
    ├── RecipeError       a recipe that cannot be run
    ├── DataError         exam, corpus or records that cannot be read as what they claim to be
    ├── ModelError        weights, adapters and tokenizers that do not fit together
    ├── TrainingError     a run that was stopped to keep its last good state
    ├── HubError          the Hub, a token or a repository
    ├── LaunchError       a job that could not be started or did not finish
    └── MissingExtraError a part of medllm that is not installed here

The command line turns each into one line and exit code 1; anything else is a bug and keeps its traceback.
docs/errors.md lists every code with its text; docs/error_codes.py reads both from the calls.
"""

import errno
import re
from collections.abc import Iterator


class MedllmError(Exception):
    """An expected error: `code` names its kind ("exam.no-key"); its text names the place, the cause and the remedy.

    Codes are stable: programs and tests compare them. Texts may change.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(code, text)
        self.code = code

    def __str__(self) -> str:
        return str(self.args[-1])


class RecipeError(MedllmError):
    """A recipe that cannot be run; the text lists every fault of the file."""


class DataError(MedllmError):
    """Exam, corpus or record files that cannot be read as what they claim to be."""


class ModelError(MedllmError):
    """Weights, adapters or tokenizers that are broken or do not fit together."""


class TrainingError(MedllmError):
    """A training run stopped on purpose, with the last good state kept."""


class HubError(MedllmError):
    """The Hub refused, is out of reach, or holds something unexpected."""


class LaunchError(MedllmError):
    """A job that could not be started or did not finish its work."""


class MissingExtraError(MedllmError):
    """A part of medllm whose libraries are not installed here."""

    def __init__(self, extra: str, needed_for: str) -> None:
        super().__init__(
            "install.missing-extra", f"{needed_for} needs the `{extra}` extra: pip install 'medllm[{extra}]'"
        )
        self.extra, self.needed_for = extra, needed_for

    def __reduce__(self) -> tuple[type["MissingExtraError"], tuple[str, str]]:
        return type(self), (self.extra, self.needed_for)


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
        isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and MEMORY.search(str(error)))
        for error in _chain(fault)
    )


def disk_is_full(fault: BaseException) -> bool:
    """Return whether a file could not be written whole: the disk, the quota or the file size limit was reached.

    >>> disk_is_full(OSError(errno.ENOSPC, "No space left on device")), disk_is_full(FileNotFoundError("a"))
    (True, False)
    """
    return any(
        error.errno in FULL if isinstance(error, OSError) else bool(DISK.search(str(error))) for error in _chain(fault)
    )


def _chain(fault: BaseException | None) -> Iterator[BaseException]:
    """Yield the error and its causes: libraries wrap the system's error in another one."""
    while fault is not None:
        yield fault
        fault = fault.__cause__ or (None if fault.__suppress_context__ else fault.__context__)
