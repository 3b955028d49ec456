"""Large files as they arrive: whole, in parts, or as xet's xorbs and shards; each becomes a blob."""

import array
import hashlib
import sqlite3
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, cast

import lz4.frame

from medllm.localhub.store import blobs
from medllm.localhub.store.blobs import Blob, ByteRange, Spool, blob_name
from medllm.localhub.store.store import Store
from medllm.localhub.validation import ServerLimits, bad_request


@dataclass(frozen=True)
class Upload:
    """A file that a user sends in parts."""

    user: int
    sha256: str
    size: int

    def waiting(self, number: int) -> str:
        """Where a part waits until all are there."""
        return f"incoming/part-{self.user}-{self.sha256}-{number:06d}"


def keep_whole(store: Store, user: int, spool: Spool) -> None:
    """Keep a file that was sent in one piece."""
    name = blob_name(spool.sha256)
    with store.database.write() as connection:
        if blobs.find(connection, spool.sha256) is None:
            store.files.publish(spool, name)
        blobs.add(connection, Blob(spool.sha256, spool.size, blobs.joined([ByteRange(name, 0, spool.size)])))
        blobs.mark_sent(connection, user, spool.sha256)


def keep_part(store: Store, upload: Upload, number: int, spool: Spool) -> None:
    """Keep one part aside."""
    store.files.publish(spool, upload.waiting(number))


def join(store: Store, upload: Upload, numbers: list[int]) -> None:
    """Make the parts one blob, without copying them, when together they have the promised sha256."""
    if len(set(numbers)) < len(numbers):
        raise bad_request("A part is named twice")
    pieces, total, digest = [], 0, hashlib.sha256()
    for number in numbers:
        waiting = upload.waiting(number)
        try:
            size = store.files.path(waiting).stat().st_size
        except FileNotFoundError:
            with store.database.write() as connection:  # the answer to an earlier request was lost on its way
                if blobs.was_sent(connection, upload.user, upload.sha256) and blobs.find(connection, upload.sha256):
                    return
            raise bad_request(f"Part {number} of {upload.sha256} was not uploaded") from None
        pieces.append((waiting, ByteRange(f"{blob_name(upload.sha256)}.{number:06d}", 0, size)))
        total += size
        if total > upload.size:
            raise bad_request(f"The parts are more than the {upload.size} bytes of {upload.sha256}")
        for chunk in blobs.read(store.files, [ByteRange(waiting, 0, size)]):
            digest.update(chunk)
    if (total, digest.hexdigest()) != (upload.size, upload.sha256):
        raise bad_request(f"The parts are not the {upload.size} bytes with the sha256 {upload.sha256}")
    with store.database.write() as connection:
        if blobs.find(connection, upload.sha256) is None:
            for waiting, piece in pieces:
                store.files.rename(waiting, piece.file)
            blobs.add(connection, Blob(upload.sha256, upload.size, blobs.joined(piece for _, piece in pieces)))
        blobs.mark_sent(connection, upload.user, upload.sha256)


_FOOTER = b"XETBLOB"
_RECORD = 48
_END = b"\xff" * 32
_HAS_VERIFICATION = 1 << 31
_HAS_METADATA = 1 << 30
_MOST_SEGMENTS = 1_000_000


def hash_text(raw: bytes) -> str:
    """A hash as xet writes it: four little-endian numbers of 64 bits."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", raw))


def unpack_xorb(source: BinaryIO, target: Spool, limits: ServerLimits) -> list[int]:
    """Write the chunks of a xorb one after another; where each one ends is given back."""
    ends: list[int] = []
    while header := source.read(8):
        if header.startswith(_FOOTER):
            break
        if len(header) < 8 or header[0] != 0:
            raise bad_request("A chunk of this xorb has no header of version 0")
        packed, scheme, size = int.from_bytes(header[1:4], "little"), header[4], int.from_bytes(header[5:8], "little")
        data = source.read(packed)
        if len(data) != packed:
            raise bad_request("The xorb ends in the middle of a chunk")
        target.write(_chunk(data, scheme, size))
        if target.size > limits.xorb_unpacked:
            raise bad_request(f"The xorb unpacks to more than {limits.xorb_unpacked} bytes")
        ends.append(target.size)
        if not size or len(ends) > limits.xorb_chunks:
            raise bad_request(f"The xorb has an empty chunk, or more than {limits.xorb_chunks} chunks")
    if not ends:
        raise bad_request("The xorb has no chunk")
    return ends


def _chunk(data: bytes, scheme: int, size: int) -> bytes:
    if scheme in (1, 2):
        try:
            data = cast(bytes, lz4.frame.LZ4FrameDecompressor().decompress(data, max_length=size + 1))
        except (RuntimeError, EOFError):
            raise bad_request("A chunk of this xorb is no LZ4 frame") from None
    elif scheme:
        raise bad_request(f"A chunk of this xorb is packed by the unknown scheme {scheme}")
    if len(data) != size:
        raise bad_request("A chunk of this xorb has another size than its header states")
    return _ungrouped(data) if scheme == 2 else data


def _ungrouped(data: bytes) -> bytes:
    """Restore the order of the bytes: scheme 2 packs every fourth byte together before LZ4."""
    result, position = bytearray(len(data)), 0
    for lane in range(4):
        length = (len(data) - lane + 3) // 4
        result[lane::4] = data[position : position + length]
        position += length
    return bytes(result)


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of chunks in one xorb."""

    xorb: str
    size: int
    first: int
    last: int


@dataclass(frozen=True)
class XetFile:
    """How one file is made of chunks, and the sha256 its sender gives it."""

    hash: str
    segments: tuple[Segment, ...]
    sha256: str | None


def read_shard(source: BinaryIO) -> Iterator[XetFile]:
    """Yield the files that a shard describes."""

    def record(count: int = 1) -> bytes:
        data = source.read(_RECORD * count)
        if len(data) != _RECORD * count:
            raise bad_request("The shard ends in the middle of a record")
        return data

    record()
    left = _MOST_SEGMENTS
    while not (head := record()).startswith(_END):
        flags, count = struct.unpack("<II", head[32:40])
        left -= count
        if left < 0:
            raise bad_request(f"The shard has more than {_MOST_SEGMENTS} segments")
        segments = tuple(_segment(record()) for _ in range(count))
        if flags & _HAS_VERIFICATION:
            for _ in range(count):
                record()
        sha256 = hash_text(record()[:32]) if flags & _HAS_METADATA else None
        yield XetFile(hash_text(head[:32]), segments, sha256)


def _segment(data: bytes) -> Segment:
    _, size, first, last = struct.unpack("<IIII", data[32:])
    if first >= last:
        raise bad_request("A segment of this shard has no chunk")
    return Segment(hash_text(data[:32]), size, first, last)


def xorb_name(user: int, xorb: str) -> str:
    """The name of a xorb's file; xorbs are kept per user, so that no user can build a file from another's chunks."""
    return f"xorbs/{user}/{xorb[:2]}/{xorb}"


def keep_xorb(store: Store, user: int, xorb: str, packed: Spool) -> bool:
    """Keep a xorb for ever; False when this user has sent it before."""
    with store.database.read() as connection:
        if _ends(connection, user, xorb) is not None:
            return False
    limits = store.limits
    with store.files.spool(limits.xorb_unpacked, "The xorb", expected=packed.size) as target:
        with packed.path.open("rb") as source:
            ends = unpack_xorb(source, target, limits)
        target.finish()
        with store.database.write() as connection:
            if _ends(connection, user, xorb) is not None:
                return False
            store.files.publish(target, xorb_name(user, xorb))
            connection.execute("INSERT INTO xorbs VALUES (?, ?, ?)", (user, xorb, array.array("I", ends).tobytes()))
    return True


def _ends(connection: sqlite3.Connection, user: int, xorb: str) -> "array.array[int] | None":
    row = connection.execute("SELECT ends FROM xorbs WHERE user = ? AND hash = ?", (user, xorb)).fetchone()
    return None if row is None else array.array("I", row["ends"])


def keep_shard(store: Store, user: int, shard: Spool) -> None:
    """Make every file of a shard a blob, once its sha256 is proved.

    A sender that lost patience sends the shard again: one at a time per user, so that it finds the work done.
    """
    with store.lock(f"shard {user}"), shard.path.open("rb") as source:
        for file in read_shard(source):
            _keep_file(store, user, file)


def _keep_file(store: Store, user: int, file: XetFile) -> None:
    with store.database.read() as connection:
        done = connection.execute(
            "SELECT sha256 FROM xet_files WHERE user = ? AND hash = ?", (user, file.hash)
        ).fetchone()
        known = blobs.find(connection, done["sha256"]) if done else None
        pieces = known.pieces if known else _pieces(connection, user, file, store.limits)
    if known is None:
        digest = hashlib.sha256()
        for chunk in blobs.read(store.files, pieces):
            digest.update(chunk)
        if file.sha256 not in (None, digest.hexdigest()):
            raise bad_request(f"The chunks of the file {file.hash} do not have the sha256 {file.sha256}")
        known = Blob(digest.hexdigest(), sum(piece.length for piece in pieces), pieces)
    with store.database.write() as connection:
        blobs.add(connection, known)
        blobs.mark_sent(connection, user, known.sha256)
        connection.execute("INSERT OR REPLACE INTO xet_files VALUES (?, ?, ?)", (user, file.hash, known.sha256))


def _pieces(connection: sqlite3.Connection, user: int, file: XetFile, limits: ServerLimits) -> tuple[ByteRange, ...]:
    """Locate the bytes of a file, after checking that its size is in proportion to the content sent for it."""
    known: dict[str, array.array[int]] = {}
    for part in file.segments:
        if part.xorb not in known:
            ends = _ends(connection, user, part.xorb)
            if ends is None:
                raise bad_request(f"The xorb {part.xorb} was not uploaded")
            known[part.xorb] = ends
    size, stored = sum(part.size for part in file.segments), sum(ends[-1] for ends in known.values())
    most = min(limits.lfs_file, limits.xet_repeats_above + limits.xet_repeats * stored)
    if size > most:
        raise bad_request(
            f"The file {file.hash} of {size} bytes repeats the {stored} bytes that were sent for it too often; "
            f"{most} bytes are the bound. Send it with HF_HUB_DISABLE_XET=1."
        )
    pieces = blobs.joined(_piece(user, part, known[part.xorb]) for part in file.segments)
    if len(pieces) > limits.xet_pieces:
        raise bad_request(
            f"The file {file.hash} is made of {len(pieces)} runs of bytes; {limits.xet_pieces} is the bound. "
            "Send it with HF_HUB_DISABLE_XET=1."
        )
    return pieces


def _piece(user: int, part: Segment, ends: "array.array[int]") -> ByteRange:
    if part.last > len(ends):
        raise bad_request(f"The xorb {part.xorb} has {len(ends)} chunks, not {part.last}")
    start = ends[part.first - 1] if part.first else 0
    if ends[part.last - 1] - start != part.size:
        raise bad_request(f"Chunks {part.first}-{part.last} of the xorb {part.xorb} have not {part.size} bytes")
    return ByteRange(xorb_name(user, part.xorb), start, part.size)
