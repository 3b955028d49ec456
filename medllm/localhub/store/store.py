"""The store of one hub: its files, signing key, limits, and its metadata in SQLite with one writer at a time."""

import hashlib
import hmac
import queue
import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medllm.errors import HubError
from medllm.localhub.store import accounts
from medllm.localhub.store.accounts import NOBODY, Caller
from medllm.localhub.store.blobs import Files
from medllm.localhub.validation import HubRefusal, ServerLimits, disk_full

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
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            if version > VERSION:
                raise HubRefusal(
                    "server.newer-store",
                    f"{path}: made by a newer medllm (schema {version}); update medllm to open it",
                    status=500,
                )
            if version < VERSION:
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


OWN_NAMES = frozenset({"blobs", "xorbs", "incoming", "jobs", "hub.sqlite"})
"""What a hub's folder holds; a folder with anything else and without the database is not a hub's."""


class Store:
    """The content of one hub folder; several servers, also of several processes, may use one folder at once."""

    def __init__(self, folder: Path, limits: ServerLimits | None = None) -> None:
        self.folder = folder.resolve()
        self.limits = limits or ServerLimits()
        _refuse_foreign(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.files = Files(self.folder, self.limits)
            self.database = Database(self.folder / "hub.sqlite")
        except OSError as fault:
            raise HubError(
                "hub.folder-not-writable",
                f"{folder}: cannot hold a hub: {fault.strerror}. Name a folder that you may write to.",
            ) from fault
        with self.database.write() as connection:
            for key, fresh in (("store_id", secrets.token_hex(8)), ("key", secrets.token_hex(32))):
                connection.execute("INSERT OR IGNORE INTO settings VALUES (?, ?)", (key, fresh))
            settings = dict(connection.execute("SELECT key, value FROM settings").fetchall())
        self.id = settings["store_id"]
        self._key = bytes.fromhex(settings["key"])
        self._session: dict[str, tuple[int, str]] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._locks_guard = threading.Lock()

    def close(self) -> None:
        """Close the database of the metadata."""
        self.database.close()

    @property
    def owner(self) -> str:
        """The name of the hub's owner; on first use, the account that runs this process."""
        with self.database.write() as connection:
            return accounts.first_user(connection)

    def sign(self, *words: str | int) -> str:
        """A signature that only this store can make."""
        text = "\n".join(str(word) for word in words).encode()
        return hmac.new(self._key, text, hashlib.sha256).hexdigest()

    def is_signed(self, signature: str, *words: str | int) -> bool:
        """Return whether this store made the signature for these words."""
        return hmac.compare_digest(signature.encode("utf-8", "replace"), self.sign(*words).encode())

    def session_token(self, user: str) -> str:
        """A token with the write role that lives only in this process."""
        with self.database.write() as connection:
            number = accounts.add_user(connection, user)
        token = accounts.new_token()
        self._session[accounts.digest(token)] = (number, accounts.now())
        return token

    def identify(self, token: str | None) -> Caller | None:
        """Find the caller of this token; None when the token is invalid."""
        if token is None:
            return NOBODY
        digest = accounts.digest(token)
        with self.database.read() as connection:
            if session := self._session.get(digest):
                return accounts.caller(connection, session[0], role="write", label="this process", created=session[1])
            return accounts.identify(connection, digest)

    def storage_id(self) -> str:
        """Return the name of the xet storage, under which clients remember what they have sent."""
        with self.database.read() as connection:
            row = connection.execute("SELECT value FROM settings WHERE key = 'storage'").fetchone()
        return f"{self.id}{row['value']}" if row else self.id

    def forget_clients(self, connection: sqlite3.Connection) -> None:
        """Give the xet storage a new name, because some chunks that clients remember are deleted."""
        connection.execute("INSERT OR REPLACE INTO settings VALUES ('storage', ?)", (secrets.token_hex(4),))

    def lock(self, name: str) -> threading.Lock:
        """Return the lock of this name in this process, for work that should not be done twice at once."""
        with self._locks_guard:
            return self._locks.setdefault(name, threading.Lock())


def _refuse_foreign(folder: Path) -> None:
    """Refuse a folder that holds other things and no hub: a hub would put its files among them."""
    if not folder.is_dir() or (folder / "hub.sqlite").is_file():
        return
    names = sorted(path.name for path in folder.iterdir())
    foreign = [name for name in names if name not in OWN_NAMES and not name.startswith(".") and name != "lost+found"]
    if foreign:
        shown = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
        raise HubError(
            "hub.folder-not-a-hub",
            f"{folder}: is no hub and is not empty ({shown}). Nothing was changed; name a hub's folder, or a new or "
            "empty one.",
        )
