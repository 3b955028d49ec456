"""Routes of a commit: how each file should be sent, the lines of the commit, and the commit itself."""

import base64
import binascii
import hashlib
import html
import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from starlette.responses import Response

from medllm.localhub.store import commits, refs, repos, trees
from medllm.localhub.store.blobs import Spool
from medllm.localhub.store.commits import Add, AddLarge, Header, Operation, Remove
from medllm.localhub.store.store import Store
from medllm.localhub.store.trees import Node
from medllm.localhub.validation import HubRefusal, bad_request, check_path, check_sha256, no_revision, too_large
from medllm.localhub.web import metadata
from medllm.localhub.web.metadata import content
from medllm.localhub.web.patterns import Ignored, Large
from medllm.localhub.web.request import Call, Fields, Routes, answer

LARGE = """
*.7z *.arrow *.avro *.bin *.bz2 *.ckpt *.db *.duckdb *.flac *.ftz *.gguf *.gif *.gz *.h5 *.jpeg *.jpg *.joblib *.lz4
*.mlmodel *.model *.mp3 *.mp4 *.msgpack *.npy *.npz *.onnx *.ot *.parquet *.pb *.pdf *.pickle *.pkl *.png *.pt *.pth
*.rar *.safetensors *.tar *.tar.* *.tflite *.tgz *.wasm *.wav *.webp *.xz *.zip *.zst *tfevents* tokenizer.json
"""
"""Names that a new repository's .gitattributes calls large: binary content, and text no one reads line by line."""


@contextmanager
def first_files(store: Store) -> Iterator[tuple[list[Operation], Spool]]:
    """What a new repository starts with: the patterns of large files."""
    content = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LARGE.split()).encode()
    with store.files.spool(store.limits.regular_file, "The first commit") as pack:
        operation = add(pack, ".gitattributes", content)
        pack.finish()
        yield [operation], pack


def add(pack: Spool, path: str, content: bytes) -> Add:
    """Append a small file to the pack."""
    offset = pack.size
    pack.write(content)
    return Add(path, trees.git_blob_id(content), hashlib.sha256(content).hexdigest(), offset, len(content))


@contextmanager
def read(store: Store, body: Path) -> Iterator[tuple[Header, list[Operation], Spool | None]]:
    """Yield the header and operations of a commit's body; the pack is deleted at the end unless it is published."""
    limits = store.limits
    header: Header | None = None
    operations: list[Operation] = []
    with store.files.spool(limits.commit_body, "The small files of this commit", expected=body.stat().st_size) as pack:
        for key, fields in _lines(store, body):
            if key == "header":
                header = Header(
                    fields.text("summary", ""), fields.text("description", ""), fields.optional("parentCommit")
                )
                continue
            operations.append(_operation(store, key, fields, pack))
            if len(operations) > limits.commit_files:
                raise too_large("The number of files in this commit", limits.commit_files)
        pack.finish()
        if header is None:
            raise bad_request("The commit has no header line")
        yield header, operations, pack


def _lines(store: Store, body: Path) -> Iterator[tuple[str, Fields]]:
    with body.open("rb") as file:
        while line := file.readline(store.limits.commit_line + 1):
            if len(line) > store.limits.commit_line:
                raise too_large("A line of this commit", store.limits.commit_line)
            if not line.strip():
                continue
            try:
                fields = Fields(json.loads(line))
            except (ValueError, RecursionError):
                raise bad_request("A line of this commit is not JSON") from None
            yield fields.text("key"), Fields(fields.get("value"))


def _operation(store: Store, key: str, fields: Fields, pack: Spool) -> Operation:
    path = fields.text("path")
    if key in ("deletedFile", "deletedFolder"):
        return Remove(check_path(path.removesuffix("/"), store.limits), folder=key == "deletedFolder")
    path = check_path(path, store.limits)
    if key == "lfsFile":
        return AddLarge(path, check_sha256(fields.get("oid")))
    if key == "file":
        content = _content(fields)
        errors = metadata.check(content.decode("utf-8", "replace"))[0] if path == "README.md" else []
        if errors:
            raise bad_request(f"Invalid metadata in README.md: {'; '.join(errors)}")
        return add(pack, path, content)
    raise bad_request(f"{key[:40]!r} is no operation of a commit")


def _content(fields: Fields) -> bytes:
    text = fields.text("content", most=2**31)
    encoding = fields.text("encoding", "utf-8")
    if encoding == "base64":
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise bad_request("A file's content is not base64") from None
    if encoding != "utf-8":
        raise bad_request("A file's encoding must be base64 or utf-8")
    return text.encode()


routes = Routes()

_AREA = "/api/{kinds}/{namespace}/{name}"


@routes.add("POST", _AREA + "/preupload/{revision}", body="memory")
def preupload(call: Call) -> Response:
    """For each file: inside the commit or as a large file beside it, kept out or not, and what is there now.

    A commit's own .gitignore, which clients send along, counts in place of the repository's.
    """
    fields = call.json()
    files, sent = fields.items("files", 1000), fields.optional("gitIgnore")
    with call.store.database.read() as connection:
        repo = repos.writable(connection, call.caller, call.kind, call.full)
        root = commits.tree_of(connection, repo, refs.resolve(connection, repo, call.args["revision"]))
        large = Large(_text(connection, call.store, root, ".gitattributes"))
        ignored = Ignored(_text(connection, call.store, root, ".gitignore") if sent is None else sent)
        advice = [_advice(call.store, item, large, trees.find(connection, root, item.text("path"))) for item in files]
    return answer({"files": [{**entry, "shouldIgnore": ignored(str(entry["path"]))} for entry in advice]})


def _text(connection: sqlite3.Connection, store: Store, root: str, path: str) -> str:
    """A small file of settings, or nothing when there is none."""
    node = trees.find(connection, root, path)
    if node is None or node.folder or node.size > 1_000_000:
        return ""
    return content(connection, store.files, node.sha256).decode("utf-8", "replace")


def _advice(store: Store, item: Fields, named: Large, node: Node | None) -> dict[str, object]:
    path, size = check_path(item.text("path"), store.limits), item.number("size", 0)
    large = size > store.limits.regular_file or named(path) or _is_binary(item.text("sample", ""))
    present = (node.sha256 if node.lfs else node.oid) if node and not node.folder else None
    return {"path": path, "uploadMode": "lfs" if large and size else "regular", "oid": present}


def _is_binary(sample: str) -> bool:
    """Return whether the first bytes of a file are no text."""
    try:
        data = base64.b64decode(sample)
    except (binascii.Error, ValueError):
        return False
    if b"\0" in data:
        return True
    for cut in range(4):  # the sample may end in the middle of a sign
        try:
            data[: len(data) - cut].decode()
            return False
        except UnicodeDecodeError:
            continue
    return True


def _may_commit(call: Call) -> None:
    """Check the write permission before the body is read: the hub never receives a body for a foreign repository."""
    with call.store.database.read() as connection:
        repo = repos.writable(connection, call.caller, call.kind, call.full)
        refs.resolve(connection, repo, call.args["revision"])


@routes.add(
    "POST",
    _AREA + "/commit/{revision}",
    body="spool",
    limit=lambda call: call.store.limits.commit_body,
    lane="commits",
    guard=_may_commit,
)
def commit(call: Call) -> Response:
    """Make a commit: all of its changes, or none."""
    store, revision = call.store, call.args["revision"]
    with read(store, call.spool.path) as (header, operations, pack), store.database.write() as connection:
        repo = repos.writable(connection, call.caller, call.kind, call.full)
        if call.flag("create_pr"):
            raise HubRefusal(
                "server.not-offered",
                "This hub does not offer this: discussions and pull requests",
                status=501,
                error_code="NotOffered",
            )
        reference = refs.writable(connection, repo, revision)
        commit_id = commits.commit(
            connection,
            store.files,
            call.caller,
            repo=repo,
            reference=reference,
            header=header,
            operations=operations,
            pack=pack,
        )
    address = f"{call.base}/{repo.url_path}"
    return answer(
        {"success": True, "commitOid": commit_id, "commitUrl": f"{address}/commit/{commit_id}", "hookOutput": ""}
    )


@routes.add("GET", _AREA + "/commits/{revision}")
def history(call: Call) -> Response:
    """List the commits before a revision, newest first, one page at a time."""
    limit = call.number("limit", 50, call.store.limits.page)
    page, formatted = call.page_number(), "formatted" in call.query.getlist("expand[]") + call.query.getlist("expand")
    with call.store.database.read() as connection:
        repo = repos.readable(connection, call.caller, call.kind, call.full)
        rows = list(commits.history(connection, repo, refs.resolve(connection, repo, call.args["revision"])))
    entries = [
        {
            "id": row["id"],
            "title": row["title"],
            "message": row["message"],
            "date": row["date"],
            **_formatted(row["title"], row["message"], wanted=formatted),
            "authors": [{"user": row["author"], "avatar": ""}],
        }
        for row in rows[page * limit : (page + 1) * limit]
    ]
    headers = {"X-Total-Count": str(len(rows))}
    if (page + 1) * limit < len(rows):
        headers["Link"] = f'<{call.base}{call.path}?limit={limit}&p={page + 1}>; rel="next"'
    return answer(entries, headers=headers)


def _formatted(title: str, message: str, *, wanted: bool) -> dict[str, object]:
    """Return the title and message of a commit as HTML, where a client asks for them."""
    return {"formatted": {"title": html.escape(title), "message": html.escape(message)}} if wanted else {}


@routes.add("POST", _AREA + "/super-squash/{revision}", body="memory")
def squash(call: Call) -> Response:
    """Squash a branch: its current state becomes its only commit."""
    message = call.json().text("message", "Super-squash branch using the API", most=10_000)
    with call.store.database.write() as connection:
        repo = repos.writable(connection, call.caller, call.kind, call.full)
        reference = refs.writable(connection, repo, call.args["revision"])
        head = refs.target(connection, repo, reference)
        if head is None:
            raise no_revision(call.args["revision"])
        tree = commits.tree_of(connection, repo, head)
        made = commits.record(
            connection, repo, parent=None, tree=tree, header=commits.Header(message), author=call.caller.name
        )
        refs.put(connection, repo, reference, made)
    return answer({"commitOid": made})
