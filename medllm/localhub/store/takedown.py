"""Deletes large files permanently: from a repository's history, and from the disk unless other content uses them."""

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from medllm.localhub.limits import MIB
from medllm.localhub.store import blobs, commits, refs, trees
from medllm.localhub.store.commits import Header
from medllm.localhub.store.repos import Repo
from medllm.localhub.store.store import Store
from medllm.localhub.store.trees import Node


@dataclass(frozen=True)
class LargeFile:
    """A large file that some commit of a repository holds: the commit that brought it, and a reference to it."""

    sha256: str
    size: int
    path: str
    reference: str | None
    date: str
    author: str


def large_files(connection: sqlite3.Connection, repo: Repo) -> list[LargeFile]:
    """Return every large file of a repository's history, each content once, under the name it had first."""
    found: dict[str, LargeFile] = {}
    seen: set[str] = set()
    for reference, row in _commits(connection, repo):
        for path, node in _large(connection, row["tree"], "", seen):
            one = LargeFile(node.sha256, node.size, path, reference, row["date"], row["author"])
            found.setdefault(node.sha256, one)
    return list(found.values())


def _commits(connection: sqlite3.Connection, repo: Repo) -> Iterator[tuple[str | None, sqlite3.Row]]:
    """Yield every commit with a reference that leads to it, those of main first, older ones before newer ones."""
    named = [(refs.HEADS + "main", refs.target(connection, repo, refs.HEADS + "main"))]
    for prefix in (refs.HEADS, refs.TAGS):
        named += [(name, target) for _, name, target in refs.listing(connection, repo, prefix)]
    done: set[str] = set()
    for name, target in named:
        for row in reversed(list(commits.history(connection, repo, target))):
            if row["id"] not in done:
                done.add(row["id"])
                yield name, row
    for row in connection.execute("SELECT * FROM commits WHERE repo = ? ORDER BY date, id", (repo.id,)).fetchall():
        if row["id"] not in done:
            yield None, row


def _large(connection: sqlite3.Connection, oid: str, prefix: str, seen: set[str]) -> Iterator[tuple[str, Node]]:
    if oid in seen:
        return
    seen.add(oid)
    for name, node in trees.load(connection, oid).items():
        if node.folder:
            yield from _large(connection, node.oid, f"{prefix}{name}/", seen)
        elif node.lfs:
            yield prefix + name, node


def take_down(store: Store, connection: sqlite3.Connection, repo: Repo, gone: set[str]) -> set[str]:
    """Rewrite the history without these contents and forget them; the store's files that held their bytes.

    Call `erase` on what is given back once the transaction is over: rows go first, bytes after, so that a crash
    between the two leaves bytes without a name, which `gc` removes.
    """
    _rewrite(connection, repo, gone)
    files = set[str]()
    for sha256 in gone:
        connection.execute("DELETE FROM holdings WHERE repo = ? AND sha256 = ?", (repo.id, sha256))
        held = connection.execute(
            "SELECT 1 FROM holdings WHERE sha256 = ? UNION SELECT 1 FROM bucket_files WHERE sha256 = ?",
            (sha256, sha256),
        ).fetchone()
        blob = blobs.find(connection, sha256)
        if held is not None or blob is None:
            continue
        files |= {piece.file for piece in blob.pieces}
        for table in ("blobs", "sent", "xet_files"):
            connection.execute(f"DELETE FROM {table} WHERE sha256 = ?", (sha256,))
    for name in files:
        if name.startswith("xorbs/"):
            _, user, _, xorb = name.split("/")
            connection.execute("DELETE FROM xorbs WHERE user = ? AND hash = ?", (user, xorb))
    if any(name.startswith("xorbs/") for name in files):
        store.forget_clients(connection)
    return files


def _rewrite(connection: sqlite3.Connection, repo: Repo, gone: set[str]) -> None:
    """Give every commit a twin without the contents, move the references, and drop the commits that had them."""
    rows = {row["id"]: row for row in connection.execute("SELECT * FROM commits WHERE repo = ?", (repo.id,))}
    stripped: dict[str, str] = {}
    twins: dict[str, str] = {}
    for first in rows:
        chain, here = list[str](), first
        while here in rows and here not in twins:
            chain.append(here)
            here = rows[here]["parent"]
        for one in reversed(chain):
            row = rows[one]
            tree, parent = _strip(connection, row["tree"], gone, stripped), twins.get(row["parent"], row["parent"])
            header = Header(row["title"], row["message"])
            twins[one] = (
                one
                if (tree, parent) == (row["tree"], row["parent"])
                else commits.record(
                    connection, repo, parent=parent, tree=tree, header=header, author=row["author"], date=row["date"]
                )
            )
    for old, new in twins.items():
        if old == new:
            continue
        connection.execute("UPDATE refs SET target = ? WHERE repo = ? AND target = ?", (new, repo.id, old))
        connection.execute("DELETE FROM commits WHERE repo = ? AND id = ?", (repo.id, old))


def _strip(connection: sqlite3.Connection, oid: str, gone: set[str], known: dict[str, str]) -> str:
    """Remove the contents from a folder and return its new id; a folder that only had them goes too."""
    if oid not in known:
        kept = dict[str, Node]()
        before = trees.load(connection, oid)
        for name, node in before.items():
            if node.folder:
                below = _strip(connection, node.oid, gone, known)
                kept |= {} if below == trees.EMPTY else {name: Node(True, below)}
            elif node.sha256 not in gone:
                kept[name] = node
        known[oid] = oid if kept == before else trees.save(connection, kept) if kept else trees.EMPTY
    return known[oid]


def erase(store: Store, files: set[str]) -> None:
    """Remove these files, or only the bytes that no other content uses."""
    with store.database.write() as connection:
        left = _used(connection, files)
        for name in files:
            place = store.files.path(name)
            if name not in left:
                place.unlink(missing_ok=True)
            elif place.is_file():
                _blank(place, sorted(left[name]))


def _used(connection: sqlite3.Connection, files: set[str]) -> dict[str, list[tuple[int, int]]]:
    """Find the runs of bytes in these files that some content still uses."""
    found: dict[str, list[tuple[int, int]]] = {}
    for row in connection.execute("SELECT pieces FROM blobs"):
        for name, offset, length in json.loads(row["pieces"]):
            if name in files:
                found.setdefault(name, []).append((offset, offset + length))
    for row in connection.execute("SELECT user, hash FROM xorbs"):
        name = f"xorbs/{row['user']}/{row['hash'][:2]}/{row['hash']}"
        if name in files:  # uploaded again meanwhile: the uploader has the xorb and refers to it again
            found.setdefault(name, []).append((0, 2**62))
    return found


def _blank(place: Path, kept: list[tuple[int, int]]) -> None:
    """Write zeros over everything outside the kept runs."""
    size, position = place.stat().st_size, 0
    with place.open("r+b") as file:
        for start, end in [*kept, (size, size)]:
            file.seek(position)
            for at in range(position, min(start, size), MIB):
                file.write(bytes(min(MIB, min(start, size) - at)))
            position = max(position, min(end, size))
        file.flush()
