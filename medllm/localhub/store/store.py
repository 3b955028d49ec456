"""The store of one hub: its metadata, files, signing key and limits."""

import hashlib
import hmac
import secrets
import sqlite3
import threading
from pathlib import Path

from medllm.errors import HubError
from medllm.localhub.store import accounts
from medllm.localhub.store.accounts import NOBODY, Caller
from medllm.localhub.store.blobs import Files
from medllm.localhub.store.database import Database
from medllm.localhub.validation import ServerLimits

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
