"""Routes of buckets, as far as jobs need them: make one, send files into it, list and read them."""

import json
import sqlite3
from datetime import UTC, datetime

from starlette.responses import Response

from medllm.localhub.store import accounts, blobs, buckets
from medllm.localhub.validation import HubRefusal, bad_request, check_path, check_sha256, no_entry, no_repo, too_large
from medllm.localhub.web.large_files import grant
from medllm.localhub.web.request import Call, Fields, Routes, answer
from medllm.localhub.web.tree import BlobResponse

routes = Routes()

_AREA = "/api/buckets/{namespace}/{name}"


def _full(call: Call) -> tuple[str, str]:
    """Namespace and name, where the namespace `me` is the caller's own."""
    namespace, name = call.full
    return (call.caller.name, name) if namespace == "me" and call.caller.name else (namespace, name)


def _describe(call: Call, connection: sqlite3.Connection, row: sqlite3.Row) -> dict[str, object]:
    files = buckets.files(connection, row["id"])
    full = f"{row['namespace']}/{row['name']}"
    return {
        "id": full,
        "name": full,
        "url": f"{call.base}/buckets/{full}",
        "private": bool(row["private"]),
        "createdAt": row["created"],
        "size": sum(file["size"] for file in files),
        "totalFiles": len(files),
    }


@routes.add("POST", _AREA, body="memory")
def create(call: Call) -> Response:
    """Create a bucket; where there is one of that name, describe it and answer 409."""
    private = bool(call.json().private())
    full, status = _full(call), 200
    try:
        with call.store.database.write() as connection:
            buckets.create(connection, call.caller, *full, private=private)
    except HubRefusal as refusal:
        if refusal.status != 409:
            raise
        status = 409
    with call.store.database.read() as connection:
        described = _describe(call, connection, buckets.readable(connection, call.caller, *full))
    if status == 200:
        return answer(described)
    message = f"There is a bucket {described['id']} already"
    return answer(described | {"error": message}, 409, {"X-Error-Code": "RepoExists", "X-Error-Message": message})


@routes.add("GET", _AREA)
def info(call: Call) -> Response:
    """A bucket and how much is in it."""
    with call.store.database.read() as connection:
        return answer(_describe(call, connection, buckets.readable(connection, call.caller, *_full(call))))


@routes.add("PUT", _AREA + "/settings", body="memory")
def settings(call: Call) -> Response:
    """Change who may see a bucket."""
    private = call.json().private()
    with call.store.database.write() as connection:
        row = buckets.writable(connection, call.caller, *_full(call))
        if private is not None:
            connection.execute("UPDATE buckets SET private = ? WHERE id = ?", (private, row["id"]))
    return answer({"private": bool(row["private"]) if private is None else private})


@routes.add("DELETE", _AREA)
def delete(call: Call) -> Response:
    """Remove a bucket with its files."""
    with call.store.database.write() as connection:
        row = buckets.writable(connection, call.caller, *_full(call))
        connection.execute("DELETE FROM buckets WHERE id = ?", (row["id"],))
    return answer({})


@routes.add("GET", "/api/buckets/{namespace}")
def listing(call: Call) -> Response:
    """List the buckets of a namespace that the caller may see."""
    namespace, search = call.args["namespace"], call.query.get("search", "")
    namespace = call.caller.name if namespace == "me" and call.caller.name else namespace
    with call.store.database.read() as connection:
        if accounts.find(connection, namespace) is None:
            raise no_repo(anonymous=call.caller.anonymous)
        rows = connection.execute(
            "SELECT * FROM buckets WHERE namespace = ? AND instr(lower(name), lower(?)) ORDER BY name",
            (namespace, search),
        )
        visible = [row for row in rows.fetchall() if not row["private"] or call.caller.belongs(row["namespace"])]
        return answer([_describe(call, connection, row) for row in visible])


@routes.add("GET", _AREA + "/xet-write-token")
def write_token(call: Call) -> Response:
    """Issue a token for sending content to a bucket."""
    with call.store.database.read() as connection:
        buckets.writable(connection, call.caller, *_full(call))
    return grant(call)


def _may_write(call: Call) -> None:
    with call.store.database.read() as connection:
        buckets.writable(connection, call.caller, *_full(call))


@routes.add(
    "POST",
    _AREA + "/batch",
    body="spool",
    limit=lambda call: call.store.limits.json_body,
    lane="commits",
    guard=_may_write,
)
def batch(call: Call) -> Response:
    """Add and remove files, all of them or none."""
    count = 0
    with call.store.database.write() as connection, call.spool.path.open("rb") as body:
        row = buckets.writable(connection, call.caller, *_full(call))
        for line in body:
            if not line.strip():
                continue
            count += 1
            if count > call.store.limits.commit_files:
                raise too_large("The number of files in this request", call.store.limits.commit_files)
            _change(call, connection, row["id"], line)
    return answer({"success": True, "processed": count, "succeeded": count, "failed": []})


def _change(call: Call, connection: sqlite3.Connection, bucket: int, line: bytes) -> None:
    try:
        fields = Fields(json.loads(line))
    except (ValueError, RecursionError):
        raise bad_request("A line of this request is not JSON") from None
    path, kind = check_path(fields.text("path"), call.store.limits), fields.text("type")
    if kind == "deleteFile":
        connection.execute("DELETE FROM bucket_files WHERE bucket = ? AND path = ?", (bucket, path))
        return
    if kind not in ("addFile", "copyFile"):
        raise bad_request(f"{kind[:40]!r} is no operation of a bucket")
    xet_hash = check_sha256(fields.get("xetHash"))
    # A file is named by its xet hash: only this user's own uploads count, or it would give away what others stored.
    row = connection.execute(
        "SELECT xet_files.sha256 FROM xet_files JOIN blobs USING (sha256) WHERE user = ? AND hash = ?",
        (call.caller.id, xet_hash),
    ).fetchone()
    if row is None:
        raise bad_request(f"{path}: the file {xet_hash} was not uploaded")
    mtime = fields.number("mtime", 0, most=253_402_300_799_000)  # the last year a date can have
    buckets.put(connection, bucket, path, sha256=row["sha256"], xet_hash=xet_hash, mtime=mtime)


def _entry(row: sqlite3.Row) -> dict[str, object]:
    changed = datetime.fromtimestamp(row["mtime"] / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"type": "file", "path": row["path"], "size": row["size"], "xetHash": row["xet_hash"], "mtime": changed}


@routes.add("GET", _AREA + "/tree/{path...}")
def tree(call: Call) -> Response:
    """List the files of a bucket below a folder."""
    prefix = call.args["path"].strip("/")
    deep = call.query.get("recursive", "true").lower() != "false"
    with call.store.database.read() as connection:
        row = buckets.readable(connection, call.caller, *_full(call))
        files = buckets.files(connection, row["id"], prefix)
    start = len(prefix) + 1 if prefix else 0
    here = [file for file in files if deep or "/" not in file["path"][start:]]
    folders = {file["path"][: file["path"].index("/", start)] for file in files if "/" in file["path"][start:]}
    entries = [] if deep else [{"type": "directory", "path": folder} for folder in sorted(folders)]
    return answer([*entries, *map(_entry, here)])


@routes.add("POST", _AREA + "/paths-info", body="memory")
def paths_info(call: Call) -> Response:
    """Describe the file at each of these paths of a bucket."""
    wanted = set(call.json().texts("paths"))
    with call.store.database.read() as connection:
        row = buckets.readable(connection, call.caller, *_full(call))
        return answer([_entry(file) for file in buckets.files(connection, row["id"]) if file["path"] in wanted])


@routes.add("GET", "/buckets/{namespace}/{name}/resolve/{path...}")
def file(call: Call) -> Response:
    """A file of a bucket."""
    path = call.args["path"]
    with call.store.database.read() as connection:
        row = buckets.readable(connection, call.caller, *_full(call))
        rows = [
            listed for listed in buckets.files(connection, row["id"], path.rpartition("/")[0]) if listed["path"] == path
        ]
        blob = blobs.find(connection, rows[0]["sha256"]) if rows else None
    if blob is None:
        raise no_entry(path)
    headers = {"ETag": f'"{blob.sha256}"', "X-Linked-Size": str(blob.size), "X-Content-Type-Options": "nosniff"}
    return BlobResponse(call.store.files, blob, headers=headers, wanted=call.headers.get("range"))
