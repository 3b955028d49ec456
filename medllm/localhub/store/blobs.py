"""Blobs: content identified by its sha256, stored in one file or in pieces of several."""

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from medllm.localhub.limits import MIB
from medllm.localhub.store.files import Files


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
    found = connection.execute("SELECT 1 FROM sent WHERE user = ? AND sha256 = ?", (user, sha256)).fetchone()
    return found is not None


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
