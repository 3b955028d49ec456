"""Content on the disk: written aside, synced, then renamed into place, so that a name always means whole content."""

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from medllm.localhub.errors import HubRefusal, disk_full
from medllm.localhub.limits import ServerLimits

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def is_full(fault: OSError) -> bool:
    """Return whether this fault means that the disk has no room."""
    return fault.errno in _FULL


class Spool:
    """Incoming content in a temporary file, hashed during writing; the file is deleted unless it is published."""

    def __init__(self, path: Path, limit: int, what: str) -> None:
        self.path = path
        self.size = 0
        self._limit = limit
        self._what = what
        self._hash = hashlib.sha256()
        self._file: BinaryIO = path.open("xb")

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append; more than the limit is refused before it is written."""
        self.size += len(data)
        if self.size > self._limit:
            raise HubRefusal(
                "server.too-large",
                f"{self._what} is larger than this hub takes ({self._limit} bytes)",
                status=413,
                error_code="TooLarge",
            )
        try:
            self._file.write(data)
        except OSError as fault:
            raise (disk_full() if is_full(fault) else fault) from fault
        self._hash.update(data)

    def finish(self) -> None:
        """Sync everything to disk; afterwards only a rename is missing."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as fault:
            raise (disk_full() if is_full(fault) else fault) from fault
        finally:
            self._close()

    @property
    def sha256(self) -> str:
        """The sha256 of what was written."""
        return self._hash.hexdigest()

    def _close(self) -> None:
        with suppress(OSError):  # a full disk may refuse the last buffer; the content is thrown away then
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        self.path.unlink(missing_ok=True)


class Files:
    """The folder of one hub: `incoming/` for unfinished uploads, `blobs/` and `xorbs/` for finished content."""

    def __init__(self, folder: Path, limits: ServerLimits) -> None:
        self.folder = folder
        self.limits = limits
        for name in ("incoming", "blobs", "xorbs"):
            (folder / name).mkdir(exist_ok=True)

    def spool(self, limit: int, what: str, *, expected: int = 0) -> Spool:
        """A place for incoming content; refused at once when the disk cannot take what is expected."""
        if shutil.disk_usage(self.folder).free < expected + self.limits.free_bytes:
            raise disk_full()
        try:
            return Spool(self.folder / "incoming" / secrets.token_hex(16), limit, what)
        except OSError as fault:
            raise (disk_full() if is_full(fault) else fault) from fault

    def publish(self, spool: Spool, name: str) -> None:
        """Move finished content to its name.

        Call it inside the write transaction that adds the row: the sweeper of orphans holds the same lock,
        so it never sees a file between its rename and its row.
        """
        self._move(spool.path, self.folder / name)

    def rename(self, old: str, new: str) -> None:
        """Move finished content to another name, under the same rule as `publish`."""
        self._move(self.folder / old, self.folder / new)

    def _move(self, source: Path, place: Path) -> None:
        try:
            if not place.parent.is_dir():
                place.parent.mkdir(parents=True, exist_ok=True)
                _sync_folder(place.parent.parent)
            source.replace(place)
            _sync_folder(place.parent)
        except OSError as fault:
            raise (disk_full() if is_full(fault) else fault) from fault

    def path(self, name: str) -> Path:
        """Return the path of named content; names come from the database, never from a request."""
        return self.folder / name

    def remove(self, names: list[str], report: Callable[[str, int], None]) -> None:
        """Delete content by name and report each with its size."""
        for name in names:
            place = self.folder / name
            with suppress(FileNotFoundError):
                size = place.stat().st_size
                place.unlink()
                report(name, size)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
