"""Keeps xorbs unpacked, and makes a shard's files blobs whose pieces are runs of their xorbs' bytes."""

import array
import hashlib
import sqlite3

from medllm.localhub.errors import bad_request
from medllm.localhub.limits import ServerLimits
from medllm.localhub.store import blobs
from medllm.localhub.store.blobs import Blob, ByteRange
from medllm.localhub.store.files import Spool
from medllm.localhub.store.store import Store
from medllm.localhub.xet.formats import Segment, XetFile, read_shard, unpack_xorb


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
