"""Removes content: garbage that nothing names, and large files on request; checks what is left."""

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from medllm.localhub.store import blobs, commits, refs, trees
from medllm.localhub.store.commits import Header
from medllm.localhub.store.repos import Repo
from medllm.localhub.store.store import Store
from medllm.localhub.store.trees import Node
from medllm.localhub.validation import MIB


@dataclass
class Collected:
    """What a collection removed."""

    commits: int = 0
    blobs: int = 0
    files: int = 0
    bytes: int = 0
    names: list[str] = field(default_factory=list)

    def note(self, name: str, size: int) -> None:
        """Count a file that was removed."""
        self.files += 1
        self.bytes += size
        self.names.append(name)


def collect(store: Store, grace: timedelta = timedelta(hours=24)) -> Collected:
    """Remove commits without a reference, content without a commit, and files without a record.

    Acknowledged xorbs stay for ever: clients remember them and refer to them later instead of sending them again.
    Two transactions: rows go first, files after. A crash between them leaves files without rows, which the next
    collection finds; and because a file gets its name inside a write transaction, a file seen without a row while
    the lock is held has no owner.
    """
    result = Collected()
    with store.database.write() as connection:
        _forget_commits(connection, grace, result)
        _forget_content(connection, grace, result)
    with store.database.write() as connection:
        store.files.remove(_orphans(store, connection, grace), result.note)
    return result


def _forget_commits(connection: sqlite3.Connection, grace: timedelta, result: Collected) -> None:
    oldest = (datetime.now(UTC) - grace).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    connection.execute(
        """
        WITH RECURSIVE reached (repo, id) AS (
            SELECT repo, target FROM refs
            UNION SELECT repo, id FROM commits WHERE date >= ?
            UNION SELECT commits.repo, commits.parent FROM commits
            JOIN reached ON reached.repo = commits.repo AND reached.id = commits.id WHERE commits.parent IS NOT NULL
        )
        DELETE FROM commits WHERE (repo, id) NOT IN (SELECT repo, id FROM reached)
        """,
        (oldest,),
    )
    result.commits = int(connection.execute("SELECT changes()").fetchone()[0])


def _forget_content(connection: sqlite3.Connection, grace: timedelta, result: Collected) -> None:
    held: dict[int, set[str]] = {}
    seen: dict[int, set[str]] = {}
    for repo, tree in connection.execute("SELECT DISTINCT repo, tree FROM commits").fetchall():
        _mark(connection, tree, held.setdefault(repo, set()), seen.setdefault(repo, set()))
    connection.execute("DELETE FROM holdings")
    connection.executemany(
        "INSERT INTO holdings VALUES (?, ?)", ((repo, sha256) for repo, all_ in held.items() for sha256 in all_)
    )
    connection.execute("CREATE TEMP TABLE kept_trees (oid TEXT PRIMARY KEY)")
    connection.executemany("INSERT INTO kept_trees VALUES (?)", ((oid,) for oid in set().union(*seen.values())))
    connection.execute("DELETE FROM trees WHERE oid NOT IN (SELECT oid FROM kept_trees)")
    connection.execute("DROP TABLE kept_trees")
    result.blobs = connection.execute(
        "DELETE FROM blobs WHERE touched <= ? AND sha256 NOT IN (SELECT sha256 FROM holdings) "
        "AND sha256 NOT IN (SELECT sha256 FROM bucket_files)",
        (time.time() - grace.total_seconds(),),
    ).rowcount
    for table in ("sent", "xet_files"):
        connection.execute(f"DELETE FROM {table} WHERE sha256 NOT IN (SELECT sha256 FROM blobs)")


def _mark(connection: sqlite3.Connection, oid: str, held: set[str], seen: set[str]) -> None:
    if oid in seen or oid == trees.EMPTY:
        return
    seen.add(oid)
    for node in trees.load(connection, oid).values():
        if node.folder:
            _mark(connection, node.oid, held, seen)
        else:
            held.add(node.sha256)


def named_files(connection: sqlite3.Connection) -> set[str]:
    """Return every file of the store that some record names."""
    pieces = connection.execute("SELECT pieces FROM blobs")
    xorbs = connection.execute("SELECT user, hash FROM xorbs")
    return {piece[0] for row in pieces for piece in json.loads(row["pieces"])} | {
        f"xorbs/{row['user']}/{row['hash'][:2]}/{row['hash']}" for row in xorbs
    }


def _orphans(store: Store, connection: sqlite3.Connection, grace: timedelta) -> list[str]:
    named = named_files(connection)
    orphans = []
    for part in ("blobs", "xorbs"):
        names = (_name(store, path) for path in (store.folder / part).rglob("*") if path.is_file())
        orphans += [name for name in names if name not in named]
    oldest = time.time() - grace.total_seconds()
    for path in (store.folder / "incoming").iterdir():
        if path.stat().st_mtime < oldest:
            orphans.append(_name(store, path))
    return orphans


def _name(store: Store, path: Path) -> str:
    return path.relative_to(store.folder).as_posix()


def verify(store: Store) -> list[str]:
    """Return every fault of the store: content that is missing or has another sha256, and dangling names."""
    faults = []
    with store.database.read() as connection:
        known = [row["sha256"] for row in connection.execute("SELECT sha256 FROM blobs")]
        for sha256 in known:
            faults += _faults_of(store, connection, sha256)
        for row in connection.execute("SELECT user, hash FROM xorbs"):
            if not store.files.path(f"xorbs/{row['user']}/{row['hash'][:2]}/{row['hash']}").is_file():
                faults.append(f"the xorb {row['hash']} is missing")
        for row in connection.execute(
            "SELECT repo, sha256 FROM holdings WHERE sha256 NOT IN (SELECT sha256 FROM blobs)"
        ):
            faults.append(f"repository {row['repo']} holds {row['sha256']}, which is not here")
        for row in connection.execute("SELECT repo, name, target FROM refs"):
            faults += _faults_of_ref(connection, row)
    return faults


def _faults_of(store: Store, connection: sqlite3.Connection, sha256: str) -> list[str]:
    blob, digest, size = blobs.find(connection, sha256), hashlib.sha256(), 0
    try:
        for chunk in blobs.read(store.files, blob.pieces if blob else ()):
            digest.update(chunk)
            size += len(chunk)
    except (OSError, EOFError) as fault:
        return [f"{sha256}: {fault}"]
    good = blob is not None and digest.hexdigest() == sha256 and size == blob.size
    return [] if good else [f"{sha256}: its content has the sha256 {digest.hexdigest()} and {size} bytes"]


def _faults_of_ref(connection: sqlite3.Connection, ref: sqlite3.Row) -> list[str]:
    row = connection.execute(
        "SELECT tree FROM commits WHERE repo = ? AND id = ?", (ref["repo"], ref["target"])
    ).fetchone()
    if row is None:
        return [f"repository {ref['repo']}: {ref['name']} points to {ref['target']}, which is not here"]
    try:
        held = {node.sha256 for node in trees.files(connection, row["tree"]).values()}
    except LookupError:
        return [f"repository {ref['repo']}: a folder of {ref['target']} is not here"]
    here = {
        sha256
        for sha256 in held
        if connection.execute("SELECT 1 FROM blobs WHERE sha256 = ?", (sha256,)).fetchone() is not None
    }
    return [f"repository {ref['repo']}: {ref['target']} names {sha256}, which is not here" for sha256 in held - here]


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
    by_sha256: dict[str, LargeFile] = {}
    seen: set[str] = set()
    for reference, row in _commits(connection, repo):
        for path, node in _large(connection, row["tree"], "", seen):
            file = LargeFile(node.sha256, node.size, path, reference, row["date"], row["author"])
            by_sha256.setdefault(node.sha256, file)
    return list(by_sha256.values())


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
        for link in reversed(chain):
            row = rows[link]
            tree, parent = _strip(connection, row["tree"], gone, stripped), twins.get(row["parent"], row["parent"])
            header = Header(row["title"], row["message"])
            twins[link] = (
                link
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
    ranges: dict[str, list[tuple[int, int]]] = {}
    for row in connection.execute("SELECT pieces FROM blobs"):
        for name, offset, length in json.loads(row["pieces"]):
            if name in files:
                ranges.setdefault(name, []).append((offset, offset + length))
    for row in connection.execute("SELECT user, hash FROM xorbs"):
        name = f"xorbs/{row['user']}/{row['hash'][:2]}/{row['hash']}"
        if name in files:  # uploaded again meanwhile: the uploader has the xorb and refers to it again
            ranges.setdefault(name, []).append((0, 2**62))
    return ranges


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
