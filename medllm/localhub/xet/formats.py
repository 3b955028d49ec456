"""Reads the two binary formats of xet: xorbs, which carry chunks, and shards, which list each file's pieces."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, cast

import lz4.frame

from medllm.localhub.errors import bad_request
from medllm.localhub.limits import ServerLimits
from medllm.localhub.store.files import Spool

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
