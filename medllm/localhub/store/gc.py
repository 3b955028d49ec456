"""Garbage collection: frees the space of unreachable content and checks the rest; safe beside a running server."""

import hashlib
import json
import sqlite3
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from medllm.localhub.store import blobs, trees
from medllm.localhub.store.store import Store


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
