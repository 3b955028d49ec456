"""Blobs: content identified by its sha256, and the files on the disk in which it is whole or absent."""

import errno
import hashlib
import json
import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

from medllm.localhub.validation import MIB, HubRefusal, ServerLimits, disk_full

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


class ByteRange(NamedTuple):
    """A run of bytes in one file of the store."""

    file: str
    offset: int
    length: int


@dataclass(frozen=True)
class Blob:
    """Content and the location of its bytes, in order."""

    sha256: str
    size: int
    pieces: tuple[ByteRange, ...]


def blob_name(sha256: str) -> str:
    """Return the file in the store that holds exactly the content of this sha256."""
    return f"blobs/{sha256[:2]}/{sha256}"


def find(connection: sqlite3.Connection, sha256: str) -> Blob | None:
    """Return the blob of this sha256, or None when the hub does not have it."""
    row = connection.execute("SELECT size, pieces FROM blobs WHERE sha256 = ?", (sha256,)).fetchone()
    if row is None:
        return None
    return Blob(sha256, row["size"], tuple(ByteRange(*piece) for piece in json.loads(row["pieces"])))


def touch(connection: sqlite3.Connection, sha256: str) -> None:
    """Protect a blob from the garbage collector: a client has just been informed that the blob is here."""
    connection.execute("UPDATE blobs SET touched = ? WHERE sha256 = ?", (time.time(), sha256))


def add(connection: sqlite3.Connection, blob: Blob) -> None:
    """Record a blob whose files are already written; a known blob keeps its record."""
    pieces = json.dumps([list(piece) for piece in blob.pieces], separators=(",", ":"))
    connection.execute(
        "INSERT INTO blobs VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET touched = excluded.touched",
        (blob.sha256, blob.size, pieces, time.time()),
    )


def mark_sent(connection: sqlite3.Connection, user: int, sha256: str) -> None:
    """Record that this user has sent this content, and so may name it in a commit."""
    connection.execute("INSERT OR IGNORE INTO sent VALUES (?, ?)", (user, sha256))


def was_sent(connection: sqlite3.Connection, user: int, sha256: str) -> bool:
    """Return whether this user has sent this content."""
    row = connection.execute("SELECT 1 FROM sent WHERE user = ? AND sha256 = ?", (user, sha256)).fetchone()
    return row is not None


def joined(pieces: Iterable[ByteRange]) -> tuple[ByteRange, ...]:
    """Join adjacent pieces: the same bytes in as few pieces as possible."""
    result: list[ByteRange] = []
    for piece in pieces:
        last = result[-1] if result else None
        if last and last.file == piece.file and last.offset + last.length == piece.offset:
            result[-1] = ByteRange(last.file, last.offset, last.length + piece.length)
        elif piece.length:
            result.append(piece)
    return tuple(result)


def read(files: Files, pieces: Iterable[ByteRange], start: int = 0, end: int | None = None) -> Iterator[bytes]:
    """Yield the bytes from `start` up to `end`, a mebibyte at a time."""
    position = 0
    for piece in pieces:
        first = max(start - position, 0)
        last = piece.length if end is None else min(end - position, piece.length)
        position += piece.length
        if first >= last:
            continue
        with files.path(piece.file).open("rb") as file:
            file.seek(piece.offset + first)
            left = last - first
            while left:
                data = file.read(min(MIB, left))
                if not data:
                    raise EOFError(f"{piece.file} is shorter than its record states")
                left -= len(data)
                yield data
