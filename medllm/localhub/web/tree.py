"""Routes of the content of a revision: listings, single paths, and the files themselves, whole or a range."""

import mimetypes
import re
import sqlite3
from collections.abc import Iterator
from itertools import islice
from typing import Literal
from urllib.parse import parse_qs

import anyio.to_thread
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from medllm.localhub.store import blobs, commits, refs, repos, trees
from medllm.localhub.store.blobs import Blob, Files
from medllm.localhub.store.repos import Repo
from medllm.localhub.store.trees import Node
from medllm.localhub.validation import HubRefusal, bad_request, check_path, no_entry
from medllm.localhub.web.metadata import lfs_field
from medllm.localhub.web.request import Call, Routes, answer

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


routes = Routes()

_AREA = "/api/{kinds}/{namespace}/{name}"


def _entry(path: str, node: Node) -> dict[str, object]:
    if node.folder:
        return {"type": "directory", "oid": node.oid, "size": 0, "path": path}
    large = {"lfs": lfs_field(node)} if node.lfs else {}
    return {"type": "file", "oid": node.oid, "size": node.size, "path": path, **large}


def _with_last_commit(
    connection: sqlite3.Connection, repo: Repo, commit_id: str, entries: list[dict[str, object]]
) -> None:
    if not entries:
        return
    last = commits.last_touched(connection, repo, commit_id, [str(entry["path"]) for entry in entries])
    for entry in entries:
        row = last[str(entry["path"])]
        entry["lastCommit"] = {"id": row["id"], "title": row["title"], "date": row["date"]}
        entry["securityFileStatus"] = None


@routes.add("GET", _AREA + "/tree/{revision}/{path...}")
def tree(call: Call) -> Response:
    """List a folder, on request with everything below it, one page at a time."""
    path, expand = call.args["path"].strip("/"), call.flag("expand")
    # With their last commit, entries cost a walk through the history: pages are smaller then, as on the Hub.
    limit = call.number("limit", call.store.limits.page, 50 if expand else call.store.limits.page)
    with call.store.database.read() as connection:
        repo = repos.readable(connection, call.caller, call.kind, call.full)
        commit_id = refs.resolve(connection, repo, call.args["revision"])
        node = trees.find(connection, commits.tree_of(connection, repo, commit_id), path)
        if node is None or not node.folder:
            raise no_entry(path)
        nodes = trees.walk(connection, node.oid, path, recursive=call.flag("recursive"))
        start = call.number("cursor", 0, 10**9) if "cursor" in call.query else 0
        page = [_entry(path, node) for path, node in islice(nodes, start, start + limit)]
        more = next(nodes, None) is not None
        if expand:
            _with_last_commit(connection, repo, commit_id, page)
    return answer(
        page,
        headers=call.next_page(start + limit if more else None)
        | {"X-Repo-Commit": refs.shown(call.args["revision"], commit_id)},
    )


@routes.add("POST", _AREA + "/paths-info/{revision...}", body="memory")
def paths_info(call: Call) -> Response:
    """Describe the entry at each of these paths; missing paths are left out."""
    if "json" in call.headers.get("content-type", ""):
        fields = call.json()
        paths, expand = fields.texts("paths"), fields.flag("expand")
    else:
        try:
            form = parse_qs(call.body.decode(), max_num_fields=20_000)
        except ValueError:
            raise bad_request("The body is no form") from None
        paths, expand = form.get("paths", []), form.get("expand", [""])[0].lower() == "true"
    with call.store.database.read() as connection:
        repo = repos.readable(connection, call.caller, call.kind, call.full)
        commit_id = refs.resolve(connection, repo, call.args["revision"])
        root = commits.tree_of(connection, repo, commit_id)
        entries = []
        for path in paths:
            node = trees.find(connection, root, path.strip("/"))
            if node is not None and path.strip("/"):
                entries.append(_entry(path.strip("/"), node))
        if expand:
            _with_last_commit(connection, repo, commit_id, entries)
    return answer(entries)


def _file(call: Call, kind: str) -> Response:
    path = call.args["path"]
    with call.store.database.read() as connection:
        repo = repos.readable(connection, call.caller, kind, call.full)
        repos.open_gate(connection, call.caller, repo)
        commit_id = refs.resolve(connection, repo, call.args["revision"])
        try:
            check_path(path, call.store.limits)
            node = trees.find(connection, commits.tree_of(connection, repo, commit_id), path)
        except HubRefusal:
            node = None
        blob = blobs.find(connection, node.sha256) if node and not node.folder else None
    shown = refs.shown(call.args["revision"], commit_id)
    if node is None or blob is None:
        refusal = no_entry(path)
        headers = {"X-Repo-Commit": shown, "X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
        return answer({"error": str(refusal)}, 404, headers)
    tag = f'"{node.sha256 if node.lfs else node.oid}"'
    headers = {"X-Repo-Commit": shown, "ETag": tag, **_safe_to_show(path)}
    if node.lfs:
        headers |= {"X-Linked-Size": str(node.size), "X-Linked-Etag": tag}
    if call.headers.get("if-none-match") == tag:
        return Response(None, 304, headers)
    wanted = call.headers.get("range") if call.headers.get("if-range", tag) == tag else None
    return BlobResponse(call.store.files, blob, headers=headers, wanted=wanted)


def _safe_to_show(path: str) -> dict[str, str]:
    """What keeps a browser from running a stored file as a page of this hub."""
    kind = mimetypes.guess_type(path)[0] or ""
    shown = (
        kind
        if kind in ("image/png", "image/jpeg", "image/gif", "image/webp", "application/json")
        else "text/plain; charset=utf-8"
    )
    return {
        "Content-Type": shown
        if kind.startswith(("text/", "image/")) or kind == "application/json"
        else "application/octet-stream",
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "private, no-cache",
    }


def _file_of(kind: str) -> None:
    prefix = "" if kind == "model" else f"{kind}s/"

    @routes.add(
        "GET", *(f"/{prefix}{{namespace}}/{{name}}/{verb}/{{revision}}/{{path...}}" for verb in ("resolve", "raw"))
    )
    def file(call: Call) -> Response:
        return _file(call, kind)


for _kind in ("dataset", "space", "model"):
    _file_of(_kind)
