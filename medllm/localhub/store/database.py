"""The metadata in SQLite: its tables, one writer at a time, readers that never wait, commits that are on the disk."""

import queue
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medllm.localhub.errors import HubRefusal, disk_full

SCHEMA = """
CREATE TABLE IF NOT EXISTS settings (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS people (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE COLLATE NOCASE,
    kind TEXT NOT NULL CHECK (kind IN ('user', 'org')),
    owner INTEGER NOT NULL DEFAULT 0,
    created TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS members (
    org INTEGER NOT NULL REFERENCES people,
    user INTEGER NOT NULL REFERENCES people,
    role TEXT NOT NULL CHECK (role IN ('read', 'write', 'admin')),
    PRIMARY KEY (org, user)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tokens (
    id INTEGER PRIMARY KEY,
    user INTEGER NOT NULL REFERENCES people,
    label TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('read', 'write')),
    digest TEXT NOT NULL UNIQUE,
    created TEXT NOT NULL,
    expires TEXT
);

CREATE TABLE IF NOT EXISTS repos (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL CHECK (kind IN ('model', 'dataset', 'space')),
    namespace TEXT NOT NULL COLLATE NOCASE,
    name TEXT NOT NULL COLLATE NOCASE,
    private INTEGER NOT NULL DEFAULT 0,
    gated TEXT CHECK (gated IN ('auto', 'manual')),
    sdk TEXT,
    created TEXT NOT NULL,
    modified TEXT NOT NULL,
    UNIQUE (kind, namespace, name)
);
CREATE TABLE IF NOT EXISTS moves (
    kind TEXT NOT NULL,
    namespace TEXT NOT NULL COLLATE NOCASE,
    name TEXT NOT NULL COLLATE NOCASE,
    repo INTEGER NOT NULL REFERENCES repos ON DELETE CASCADE,
    PRIMARY KEY (kind, namespace, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS refs (
    repo INTEGER NOT NULL REFERENCES repos ON DELETE CASCADE,
    name TEXT NOT NULL,
    target TEXT NOT NULL,
    PRIMARY KEY (repo, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS commits (
    repo INTEGER NOT NULL REFERENCES repos ON DELETE CASCADE,
    id TEXT NOT NULL,
    parent TEXT,
    tree TEXT NOT NULL,
    title TEXT NOT NULL,
    message TEXT NOT NULL,
    author TEXT NOT NULL,
    date TEXT NOT NULL,
    PRIMARY KEY (repo, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS trees (oid TEXT PRIMARY KEY, entries BLOB NOT NULL);

CREATE TABLE IF NOT EXISTS blobs (
    sha256 TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    pieces TEXT NOT NULL,
    touched REAL NOT NULL
) WITHOUT ROWID;
-- Which user has sent which content: what one may name in a commit without having read it in a repository.
CREATE TABLE IF NOT EXISTS sent (
    user INTEGER NOT NULL, sha256 TEXT NOT NULL, PRIMARY KEY (user, sha256)
) WITHOUT ROWID;
-- Which repository has ever held which content.
CREATE TABLE IF NOT EXISTS holdings (
    repo INTEGER NOT NULL REFERENCES repos ON DELETE CASCADE,
    sha256 TEXT NOT NULL,
    PRIMARY KEY (repo, sha256)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS holdings_by_content ON holdings (sha256);

-- Acknowledged xorbs are kept for ever: clients remember them and send later files as references to them.
CREATE TABLE IF NOT EXISTS xorbs (
    user INTEGER NOT NULL, hash TEXT NOT NULL, ends BLOB NOT NULL, PRIMARY KEY (user, hash)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS xet_files (
    user INTEGER NOT NULL, hash TEXT NOT NULL, sha256 TEXT NOT NULL, PRIMARY KEY (user, hash)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS access_requests (
    repo INTEGER NOT NULL REFERENCES repos ON DELETE CASCADE,
    user INTEGER NOT NULL REFERENCES people,
    status TEXT NOT NULL CHECK (status IN ('pending', 'accepted', 'rejected')),
    date TEXT NOT NULL,
    PRIMARY KEY (repo, user)
) WITHOUT ROWID;

-- A secret has a name and a time but no value: this hub runs no Space, so the value is never needed again.
CREATE TABLE IF NOT EXISTS space_settings (
    repo INTEGER NOT NULL REFERENCES repos ON DELETE CASCADE,
    kind TEXT NOT NULL CHECK (kind IN ('variable', 'secret')),
    key TEXT NOT NULL,
    value TEXT CHECK (kind = 'variable' OR value IS NULL),
    description TEXT,
    updated TEXT NOT NULL,
    PRIMARY KEY (repo, kind, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS space_machines (
    repo INTEGER PRIMARY KEY REFERENCES repos ON DELETE CASCADE,
    hardware TEXT NOT NULL,
    sleep_seconds INTEGER
);

CREATE TABLE IF NOT EXISTS collections (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace TEXT NOT NULL COLLATE NOCASE,
    title TEXT NOT NULL,
    description TEXT,
    private INTEGER NOT NULL DEFAULT 0,
    theme TEXT NOT NULL DEFAULT 'blue',
    created TEXT NOT NULL,
    modified TEXT NOT NULL,
    UNIQUE (namespace, title)
);
CREATE TABLE IF NOT EXISTS collection_items (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    collection INTEGER NOT NULL REFERENCES collections ON DELETE CASCADE,
    repo INTEGER NOT NULL REFERENCES repos ON DELETE CASCADE,
    position INTEGER NOT NULL,
    note TEXT,
    UNIQUE (collection, repo)
);

CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY,
    namespace TEXT NOT NULL COLLATE NOCASE,
    spec TEXT NOT NULL,
    labels TEXT NOT NULL,
    stage TEXT NOT NULL,
    message TEXT,
    created TEXT NOT NULL,
    started TEXT,
    finished TEXT
);
CREATE TABLE IF NOT EXISTS buckets (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace TEXT NOT NULL COLLATE NOCASE,
    name TEXT NOT NULL COLLATE NOCASE,
    private INTEGER NOT NULL DEFAULT 0,
    created TEXT NOT NULL,
    UNIQUE (namespace, name)
);
CREATE TABLE IF NOT EXISTS bucket_files (
    bucket INTEGER NOT NULL REFERENCES buckets ON DELETE CASCADE,
    path TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    xet_hash TEXT NOT NULL,
    mtime INTEGER NOT NULL,
    PRIMARY KEY (bucket, path)
) WITHOUT ROWID;
"""
"""SQL of all tables. Content is beside the database in blobs/ and xorbs/; a row is written only after its file."""


VERSION = 3
"""The schema's version, so that an older medllm does not write into a newer store."""


class Database:
    """A pool of connections to one SQLite file in WAL mode.

    Other processes may work on the same file: a second server on the folder, or `medllm hub token`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: queue.SimpleQueue[sqlite3.Connection] = queue.SimpleQueue()
        self._writing = threading.Lock()
        path.touch(mode=0o600)  # it holds the key that signs addresses
        with self.connection() as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            found = int(connection.execute("PRAGMA user_version").fetchone()[0])
            if found > VERSION:
                raise HubRefusal(
                    "server.newer-store",
                    f"{path}: made by a newer medllm (schema {found}); update medllm to open it",
                    status=500,
                )
            if found < VERSION:
                connection.executescript(SCHEMA)
                connection.execute(f"PRAGMA user_version = {VERSION}")

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=60, isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA foreign_keys = ON")
        # FULL: an acknowledged commit survives a power cut, not only the end of the process.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA cache_size = -2000")
        return connection

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """A connection outside any transaction, given back to the pool when it worked."""
        try:
            connection = self._idle.get_nowait()
        except queue.Empty:
            connection = self._open()
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        self._idle.put(connection)

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """One unchanging view of the metadata for as long as the block lasts."""
        with self.connection() as connection:
            connection.execute("BEGIN")
            yield connection
            connection.execute("COMMIT")

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction, alone among writers: all of the block happens, or nothing of it."""
        with self._writing, self.connection() as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            except sqlite3.OperationalError as fault:
                # `with connection` above closes it, which rolls back.
                if "full" in str(fault):
                    raise disk_full() from fault
                raise

    def close(self) -> None:
        """Close the idle connections; closing the last one merges the WAL into the file."""
        while True:
            try:
                self._idle.get_nowait().close()
            except queue.Empty:
                return
