"""Users, organisations and tokens: the identity of a caller and the namespaces open to it."""

import getpass
import hashlib
import re
import secrets
import sqlite3
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

from medllm.errors import HubError
from medllm.localhub.validation import HubRefusal, check_namespace

Role = Literal["read", "write"]


@dataclass(frozen=True)
class Caller:
    """The sender of a request."""

    id: int | None = None
    """None for an anonymous sender."""
    name: str = ""
    role: Role = "read"
    owner: bool = False
    """The hub's first user, who may do everything here."""
    namespaces: dict[str, str] = field(default_factory=dict)
    """The namespaces of the caller, in lower case, with the role in each."""
    label: str = ""
    created: str = ""

    @property
    def anonymous(self) -> bool:
        """Whether no token came with the request."""
        return self.id is None

    def belongs(self, namespace: str) -> bool:
        """Return whether the caller may see private content of a namespace."""
        return self.owner or namespace.lower() in self.namespaces

    def may_write(self, namespace: str) -> bool:
        """Return whether the caller may change the content of a namespace."""
        return self.role == "write" and (self.owner or self.namespaces.get(namespace.lower(), "read") != "read")


NOBODY = Caller()


def now() -> str:
    """Return the current time in the Hub's format."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def first_user(connection: sqlite3.Connection) -> str:
    """Return the name of the hub's owner; create the owner from the account that runs this process if there is none."""
    row = connection.execute("SELECT name FROM people WHERE owner = 1").fetchone()
    if row is None:
        name = re.sub(r"[^A-Za-z0-9_]+", "-", getpass.getuser()).strip("-")[:60]
        try:
            name = check_namespace(name)
        except HubRefusal:
            name = "owner"
        _insert(connection, name, "user", owner=True)
        return name
    return str(row["name"])


def _insert(connection: sqlite3.Connection, name: str, kind: str, *, owner: bool = False) -> int:
    cursor = connection.execute(
        "INSERT INTO people (name, kind, owner, created) VALUES (?, ?, ?, ?)", (name, kind, owner, now())
    )
    return int(cursor.lastrowid or 0)


def is_empty(connection: sqlite3.Connection) -> bool:
    """Return whether this hub has no user yet."""
    return connection.execute("SELECT 1 FROM people").fetchone() is None


def find(connection: sqlite3.Connection, name: str) -> sqlite3.Row | None:
    """Return the user or organisation of this name."""
    row: sqlite3.Row | None = connection.execute("SELECT * FROM people WHERE name = ?", (name,)).fetchone()
    return row


def add_user(connection: sqlite3.Connection, name: str) -> int:
    """Return the user of this name, created when missing; the very first one becomes the owner."""
    row = find(connection, name)
    if row is None:
        first = connection.execute("SELECT 1 FROM people WHERE owner = 1").fetchone() is None
        return _insert(connection, check_namespace(name), "user", owner=first)
    if row["kind"] != "user":
        raise HubError(
            "hub.not-a-user",
            f"{name} is an organisation here, and a token belongs to a user. Name a user, and join with --org {name}.",
        )
    return int(row["id"])


def join(connection: sqlite3.Connection, org: str, user: int, role: str) -> None:
    """Make the user a member of an organisation, which is made when missing."""
    row = find(connection, org)
    if row is not None and row["kind"] != "org":
        raise HubError(
            "hub.not-an-organisation", f"{org} is a user here, not an organisation. Name another organisation."
        )
    number = int(row["id"]) if row is not None else _insert(connection, check_namespace(org), "org")
    connection.execute("INSERT OR REPLACE INTO members VALUES (?, ?, ?)", (number, user, role))


def digest(token: str) -> str:
    """Hash a token for storage. Tokens are random, so a fast hash is enough."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def new_token() -> str:
    """Draw a token of 200 random bits, in the shape that clients expect."""
    return "hf_" + "".join(
        secrets.choice("abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789") for _ in range(34)
    )


def issue(connection: sqlite3.Connection, user: int, *, role: Role, label: str, days: int | None = None) -> str:
    """Issue a new token for a user; its text is returned only here."""
    token = new_token()
    ends = None if days is None else (datetime.now(UTC) + timedelta(days=days)).isoformat()
    connection.execute(
        "INSERT INTO tokens (user, label, role, digest, created, expires) VALUES (?, ?, ?, ?, ?, ?)",
        (user, label, role, digest(token), now(), ends),
    )
    return token


def identify(connection: sqlite3.Connection, token_digest: str) -> Caller | None:
    """Find the caller of a token, or None when the token is unknown, revoked or expired."""
    row = connection.execute(
        "SELECT user, label, role, created, expires FROM tokens WHERE digest = ?", (token_digest,)
    ).fetchone()
    if row is None or (row["expires"] and row["expires"] < datetime.now(UTC).isoformat()):
        return None
    return caller(connection, row["user"], role=row["role"], label=row["label"], created=row["created"])


def caller(connection: sqlite3.Connection, user: int, *, role: Role, label: str, created: str) -> Caller:
    """Build the caller for a user and the role of the token."""
    person = connection.execute("SELECT name, owner FROM people WHERE id = ?", (user,)).fetchone()
    orgs = connection.execute(
        "SELECT people.name, members.role FROM members JOIN people ON people.id = members.org WHERE members.user = ?",
        (user,),
    )
    namespaces = {str(org["name"]).lower(): str(org["role"]) for org in orgs}
    namespaces[str(person["name"]).lower()] = "admin"
    return Caller(user, person["name"], role, bool(person["owner"]), namespaces, label, created)


def organisations(connection: sqlite3.Connection, user: int) -> list[sqlite3.Row]:
    """Return the organisations a user belongs to, with the role in each."""
    return connection.execute(
        "SELECT people.id, people.name, members.role FROM members JOIN people ON people.id = members.org "
        "WHERE members.user = ? ORDER BY people.name",
        (user,),
    ).fetchall()


def tokens(connection: sqlite3.Connection) -> list[sqlite3.Row]:
    """List every valid token without its text, which the hub does not keep."""
    return connection.execute(
        "SELECT tokens.id, people.name, tokens.role, tokens.label, tokens.created, tokens.expires "
        "FROM tokens JOIN people ON people.id = tokens.user ORDER BY tokens.id"
    ).fetchall()


def revoke(connection: sqlite3.Connection, number: int) -> None:
    """Revoke a token with immediate effect."""
    if connection.execute("DELETE FROM tokens WHERE id = ?", (number,)).rowcount == 0:
        raise HubError(
            "hub.no-such-token", f"There is no token {number}. `medllm hub token list DIR` lists the valid ones."
        )
