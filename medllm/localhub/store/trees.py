"""Folders as git knows them: content-addressed, so that a commit rewrites only the folders it touches."""

import hashlib
import json
import sqlite3
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from medllm.localhub.validation import bad_request, same_name

EMPTY = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
"""The git id of the folder with nothing in it."""
_LONG = 20_000


class Node(NamedTuple):
    """A file or a folder in a folder."""

    folder: bool
    oid: str
    """The git id: of the content, of the LFS pointer, or of the folder's own listing."""
    size: int = 0
    sha256: str = ""
    lfs: bool = False


@dataclass
class TreeChange:
    """What a commit does below one folder: a name is set to a node, given a plan of its own, or removed (None)."""

    changes: dict[str, "Node | TreeChange | None"] = field(default_factory=dict)
    fresh: bool = False
    """The folder was removed earlier in the same commit: its old content does not come back."""
    removed: set[str] = field(default_factory=set)
    """Names removed earlier in the same commit, which may come back as something else."""

    def set(self, path: str, node: Node) -> None:
        """Put a file at this path."""
        folder, name = self._folder_of(path)
        folder.changes[name] = node

    def remove(self, path: str) -> None:
        """Take away the file or folder at this path."""
        folder, name = self._folder_of(path)
        folder.changes[name] = None
        folder.removed.add(name)

    def _folder_of(self, path: str) -> tuple["TreeChange", str]:
        *parents, name = path.split("/")
        plan = self
        for parent in parents:
            below = plan.changes.get(parent)
            if isinstance(below, Node):
                raise bad_request(f"{path!r}: a folder on this path is a file in the same commit")
            if below is None:
                below = TreeChange(fresh=parent in plan.changes)
                plan.changes[parent] = below
            plan = below
        return plan, name


def git_blob_id(content: bytes) -> str:
    """Return the id git gives to a file with this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def lfs_pointer(sha256: str, size: int) -> bytes:
    """Return the small text that represents a large file in git."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def lfs_node(sha256: str, size: int) -> Node:
    """Return the node of a large file."""
    return Node(False, git_blob_id(lfs_pointer(sha256, size)), size, sha256, lfs=True)


def load(connection: sqlite3.Connection, oid: str) -> Mapping[str, Node]:
    """Load the entries of a folder by name, in git's order."""
    if oid == EMPTY:
        return {}
    row = connection.execute("SELECT entries FROM trees WHERE oid = ?", (oid,)).fetchone()
    if row is None:
        raise LookupError(f"the folder {oid} is not here")
    return _parse_again(row["entries"]) if len(row["entries"]) > _LONG else _parse(row["entries"])


def _parse(entries: bytes) -> Mapping[str, Node]:
    return {name: Node(*rest) for name, *rest in json.loads(zlib.decompress(entries))}


# A download asks once or twice for each file: ten thousand files in one folder would be parsed ten thousand times.
_parse_again = lru_cache(maxsize=8)(_parse)


def save(connection: sqlite3.Connection, nodes: Mapping[str, Node]) -> str:
    """Keep a folder; its id."""
    order = sorted(nodes.items(), key=lambda item: item[0].encode() + (b"/" if item[1].folder else b""))
    raw = b"".join(
        b"%s %s\0%s" % (b"40000" if node.folder else b"100644", name.encode(), bytes.fromhex(node.oid))
        for name, node in order
    )
    oid = hashlib.sha1(b"tree %d\0" % len(raw) + raw, usedforsecurity=False).hexdigest()
    entries = zlib.compress(json.dumps([[name, *node] for name, node in order], separators=(",", ":")).encode(), 1)
    connection.execute("INSERT OR IGNORE INTO trees VALUES (?, ?)", (oid, entries))
    return oid


def edit(connection: sqlite3.Connection, oid: str, plan: TreeChange) -> str:
    """Apply the plan and return the new folder's id; only the folders that the plan touches are rewritten."""
    nodes = {} if plan.fresh else dict(load(connection, oid))
    for name, change in plan.changes.items():
        old = nodes.get(name)
        if change is None:
            nodes.pop(name, None)
            continue
        if isinstance(change, Node):
            if old and old.folder and name not in plan.removed:
                raise bad_request(f"{name!r} is a folder, and cannot be replaced by a file")
            nodes[name] = change
            continue
        if old and not old.folder and not change.fresh:
            raise bad_request(f"{name!r} is a file, and cannot have files in it")
        below = edit(connection, old.oid if old and old.folder else EMPTY, change)
        nodes.pop(name, None)
        if below != EMPTY:
            nodes[name] = Node(True, below)
    if len({same_name(name) for name in nodes}) < len(nodes):
        twins = sorted(nodes, key=same_name)
        pair = next(pair for pair in pairwise(twins) if same_name(pair[0]) == same_name(pair[1]))
        raise bad_request(f"{pair[0]!r} is there twice, spelt in two Unicode forms")
    return save(connection, nodes) if nodes else EMPTY


def find(connection: sqlite3.Connection, root: str, path: str) -> Node | None:
    """Return the file or folder at this path, or None."""
    node: Node | None = Node(True, root)
    for name in path.split("/") if path else []:
        if node is None or not node.folder:
            return None
        node = load(connection, node.oid).get(name)
    return node


def walk(
    connection: sqlite3.Connection, oid: str, prefix: str = "", *, recursive: bool = True
) -> Iterator[tuple[str, Node]]:
    """Yield every path below a folder with its node, each folder before its content."""
    for name, node in load(connection, oid).items():
        path = f"{prefix}/{name}" if prefix else name
        yield path, node
        if node.folder and recursive:
            yield from walk(connection, node.oid, path)


def files(connection: sqlite3.Connection, oid: str) -> dict[str, Node]:
    """Return every file below a folder by its path."""
    return {path: node for path, node in walk(connection, oid) if not node.folder}
