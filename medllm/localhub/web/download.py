"""Sends a blob, whole or a range of it, without holding more than a mebibyte."""

import re
from collections.abc import Iterator
from typing import Literal

import anyio.to_thread
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from medllm.localhub.errors import HubRefusal
from medllm.localhub.store import blobs
from medllm.localhub.store.blobs import Blob
from medllm.localhub.store.files import Files

_RANGE = re.compile(r"bytes=([0-9]{0,15})-([0-9]{0,15})")


class BlobResponse(Response):
    """A file's content as a stream."""

    def __init__(self, files: Files, blob: Blob, *, headers: dict[str, str], wanted: str | None) -> None:
        self._files = files
        self._blob = blob
        span = byte_range(wanted, blob.size)
        self._start, self._end = span or (0, blob.size)
        super().__init__(None, 206 if span else 200, media_type="application/octet-stream")
        self.headers.update({"Accept-Ranges": "bytes", "Content-Length": str(self._end - self._start), **headers})
        if span:
            self.headers["Content-Range"] = f"bytes {self._start}-{self._end - 1}/{blob.size}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the headers, then the bytes unless only the headers were asked for."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if scope["method"] != "HEAD":
            chunks = blobs.read(self._files, self._blob.pieces, self._start, self._end)
            while chunk := await anyio.to_thread.run_sync(_next, chunks):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def _next(chunks: Iterator[bytes]) -> bytes | Literal[b""]:
    return next(chunks, b"")


def byte_range(wanted: str | None, size: int) -> tuple[int, int] | None:
    """Start and end of the one range that was asked for; None for the whole file.

    >>> byte_range("bytes=2-4", 10), byte_range("bytes=-3", 10), byte_range("bytes=7-", 10), byte_range("lines=1", 10)
    ((2, 5), (7, 10), (7, 10), None)
    """
    match = _RANGE.fullmatch(wanted.replace(" ", "")) if wanted else None
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        start, end = max(size - int(last), 0), size
    else:
        start, end = int(first), min(int(last) + 1 if last else size, size)
    if start >= end:
        raise HubRefusal(
            "server.range-outside",
            f"The range is outside the {size} bytes of the file",
            status=416,
            error_code="RangeNotSatisfiable",
        )
    return start, end
