"""Commits: one transaction that moves a branch from one whole state of a repository to the next."""

import hashlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from medllm.localhub.store import blobs, refs, repos, trees
from medllm.localhub.store.accounts import Caller, now
from medllm.localhub.store.blobs import Blob, ByteRange, Files, Spool
from medllm.localhub.store.repos import Repo
from medllm.localhub.store.trees import Node, TreeChange
from medllm.localhub.validation import HubRefusal, bad_request, no_entry, no_revision


@dataclass(frozen=True)
class Header:
    """The message of a commit, and the parent that its author expects."""

    title: str
    message: str = ""
    parent: str | None = None


@dataclass(frozen=True)
class Add:
    """A small file whose content is in the commit's pack."""

    path: str
    oid: str
    sha256: str
    offset: int
    size: int


@dataclass(frozen=True)
class AddLarge:
    """A large file, sent before or read elsewhere on this hub, named by its sha256."""

    path: str
    sha256: str


@dataclass(frozen=True)
class Remove:
    """A file or folder that the commit removes."""

    path: str
    folder: bool


Operation = Add | AddLarge | Remove


def commit(
    connection: sqlite3.Connection,
    files: Files,
    caller: Caller,
    *,
    repo: Repo,
    reference: str,
    header: Header,
    operations: list[Operation],
    pack: Spool | None,
) -> str:
    """Make the commit and move the reference; the caller's transaction makes all of it visible at once."""
    parent = refs.target(connection, repo, reference)
    if header.parent and not (parent or "").startswith(header.parent):
        raise HubRefusal(
            "server.commit-came-first",
            "A commit has happened since. Please refresh and try again.",
            status=412,
            error_code="PreconditionFailed",
        )
    root = tree_of(connection, repo, parent) if parent else trees.EMPTY
    plan, new = TreeChange(), set[str]()
    for operation in operations:
        if isinstance(operation, Remove):
            _remove(connection, root, plan, operation)
            continue
        node = _node(connection, caller, operation)
        plan.set(operation.path, node)
        new.add(node.sha256)
    if pack is not None:
        _keep(connection, files, operations, pack)
    tree = trees.edit(connection, root, plan)
    commit_id = record(connection, repo, parent=parent, tree=tree, header=header, author=caller.name)
    connection.executemany("INSERT OR IGNORE INTO holdings VALUES (?, ?)", [(repo.id, sha256) for sha256 in new])
    refs.put(connection, repo, reference, commit_id)
    connection.execute("UPDATE repos SET modified = ? WHERE id = ?", (now(), repo.id))
    return commit_id


def _remove(connection: sqlite3.Connection, root: str, plan: TreeChange, operation: Remove) -> None:
    node = trees.find(connection, root, operation.path)
    if node is None and not operation.folder:
        raise no_entry(operation.path)
    plan.remove(operation.path)


def _node(connection: sqlite3.Connection, caller: Caller, operation: Add | AddLarge) -> Node:
    if isinstance(operation, Add):
        return Node(False, operation.oid, operation.size, operation.sha256)
    blob = blobs.find(connection, operation.sha256)
    known = blob is not None and (
        (caller.id is not None and blobs.was_sent(connection, caller.id, blob.sha256))
        or repos.may_read_content(connection, caller, blob.sha256)
    )
    if blob is None or not known:
        # The same answer for "not here" and "not yours": a sha256 must not reveal what others have stored.
        raise bad_request(f"{operation.path}: the large file {operation.sha256} was not uploaded")
    return trees.lfs_node(blob.sha256, blob.size)


def _keep(connection: sqlite3.Connection, files: Files, operations: list[Operation], pack: Spool) -> None:
    """Keep the commit's small files as pieces of one pack, unless all of them are here already."""
    name, fresh = blobs.blob_name(pack.sha256), False
    for operation in operations:
        if isinstance(operation, Add) and blobs.find(connection, operation.sha256) is None:
            pieces = (ByteRange(name, operation.offset, operation.size),) if operation.size else ()
            blobs.add(connection, Blob(operation.sha256, operation.size, pieces))
            fresh = True
    if fresh and pack.size:
        files.publish(pack, name)


def record(
    connection: sqlite3.Connection,
    repo: Repo,
    *,
    parent: str | None,
    tree: str,
    header: Header,
    author: str,
    date: str | None = None,
) -> str:
    """Record a commit and return its id, computed as git computes it; dated now unless a date is given."""
    date = date or now()
    seconds = int(datetime.fromisoformat(date).timestamp())
    who = f"{author} <{author}@localhub> {seconds} +0000"
    above = f"parent {parent}\n" if parent else ""
    text = f"{header.title}\n\n{header.message}\n" if header.message else f"{header.title}\n"
    raw = f"tree {tree}\n{above}author {who}\ncommitter {who}\n\n{text}".encode("utf-8", "replace")
    commit_id = hashlib.sha1(b"commit %d\0" % len(raw) + raw, usedforsecurity=False).hexdigest()
    connection.execute(
        "INSERT OR IGNORE INTO commits VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (repo.id, commit_id, parent, tree, header.title, header.message, author, date),
    )
    return commit_id


def get(connection: sqlite3.Connection, repo: Repo, commit_id: str) -> sqlite3.Row:
    """Return the row of a commit."""
    row: sqlite3.Row | None = connection.execute(
        "SELECT * FROM commits WHERE repo = ? AND id = ?", (repo.id, commit_id)
    ).fetchone()
    if row is None:
        raise no_revision(commit_id)
    return row


def tree_of(connection: sqlite3.Connection, repo: Repo, commit_id: str) -> str:
    """Return the root folder of a commit."""
    return str(get(connection, repo, commit_id)["tree"])


def history(connection: sqlite3.Connection, repo: Repo, commit_id: str | None) -> Iterator[sqlite3.Row]:
    """A commit and those before it, newest first."""
    while commit_id:
        row = get(connection, repo, commit_id)
        yield row
        commit_id = row["parent"]


def last_touched(
    connection: sqlite3.Connection, repo: Repo, commit_id: str, paths: list[str]
) -> dict[str, sqlite3.Row]:
    """For each path the commit that gave it its present content."""
    open_paths = set(paths)
    result: dict[str, sqlite3.Row] = {}
    rows = history(connection, repo, commit_id)
    row = next(rows)
    nodes = {path: trees.find(connection, row["tree"], path) for path in open_paths}
    for older in rows:
        before = {path: trees.find(connection, older["tree"], path) for path in open_paths}
        changed = {path for path in open_paths if before[path] != nodes[path]}
        result |= dict.fromkeys(changed, row)
        open_paths -= changed
        if not open_paths:
            return result
        row = older
    return result | dict.fromkeys(open_paths, row)
