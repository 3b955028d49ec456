"""Files opened with a limit on their unpacked size: a zip bomb is reported, not unpacked."""

import gzip
import io
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from medllm.corpus.errors import UnreadableError

LARGEST = 64 * 1024 * 1024
"""Maximum bytes of one document: a line, a page, a PDF."""
RATIO = 200
"""Limit on unpacked to packed size: text packs to a fifth or a tenth, a file that grows two hundredfold is a bomb."""
GRACE = 16 * 1024 * 1024


class _Guarded(io.RawIOBase):
    """A stream that raises an error when far more bytes come out than went in."""

    def __init__(self, stream: BinaryIO, packed: int) -> None:
        self._stream = stream
        self._bound = max(GRACE, packed * RATIO)
        self._out = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        data = self._stream.read(len(view))
        view[: len(data)] = data
        self._out += len(data)
        if self._out > self._bound:
            raise UnreadableError(
                "corpus.archive-bomb", f"it unpacks to more than {self._bound:,} bytes. Unpack it by hand and check it."
            )
        return len(data)


def open_bytes(path: Path) -> BinaryIO:
    """Open the bytes of a file, unpacked when its name ends in .gz."""
    if path.suffix != ".gz":
        return path.open("rb")
    return cast(BinaryIO, io.BufferedReader(_Guarded(cast(BinaryIO, gzip.open(path)), path.stat().st_size), 1 << 16))


def bounded_archive(stream: BinaryIO, packed: int) -> None:
    """Unpack every file of a zip archive within the limits and throw it away; one that breaks them is refused.

    For libraries that open an archive themselves, without limits. A file states its size, so its bytes are counted.
    """
    try:
        with zipfile.ZipFile(stream) as archive:
            left = max(GRACE, packed * RATIO)
            for info in archive.infolist():
                with archive.open(info) as inner:
                    while data := inner.read(1 << 20):
                        left -= len(data)
                        if left < 0:
                            raise UnreadableError(
                                "corpus.archive-bomb",
                                f"{info.filename} unpacks to far more than the file holds. Unpack it and check it.",
                            )
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, zlib.error) as fault:
        raise UnreadableError(
            "corpus.broken-archive", f"the file is broken, locked or of an old format ({fault}). Save it again."
        ) from None


def members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of each file in a zip archive, none larger than a document may be."""
    try:
        with zipfile.ZipFile(path) as archive:
            whole = sum(info.file_size for info in archive.infolist())
            if whole > max(GRACE, path.stat().st_size * RATIO):
                raise UnreadableError(
                    "corpus.archive-bomb",
                    f"its files have {whole:,} bytes by its own account. Unpack it by hand and check it.",
                )
            for info in archive.infolist():
                if info.is_dir():
                    continue
                if info.file_size > LARGEST:
                    raise UnreadableError(
                        "corpus.too-large", f"{info.filename} has {info.file_size:,} bytes. Unpack the archive first."
                    )
                with archive.open(info) as stream:
                    data = stream.read(LARGEST + 1)
                if len(data) > info.file_size:
                    raise UnreadableError(
                        "corpus.archive-bomb",
                        f"{info.filename} is larger than the archive states. Unpack it by hand and check it.",
                    )
                yield info.filename, data
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as fault:
        raise UnreadableError("corpus.broken-archive", f"the archive is broken ({fault}). Pack it again.") from None
