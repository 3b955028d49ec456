"""The metadata in SQLite: one writer at a time, readers that never wait, and a commit that is on the disk."""

import queue
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medllm.localhub.errors import HubRefusal, disk_full
from medllm.localhub.store.schema import SCHEMA

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
