"""Repositories: how one is made, found, moved and deleted, and who may see it."""

import sqlite3
from dataclasses import dataclass

from medllm.localhub.store import accounts
from medllm.localhub.store.accounts import Caller, now
from medllm.localhub.validation import HubRefusal, check_name, check_namespace, forbidden, no_repo, unauthorized


@dataclass(frozen=True)
class Repo:
    """One repository as its row in the metadata."""

    id: int
    kind: str
    namespace: str
    name: str
    private: bool
    gated: str | None
    sdk: str | None
    created: str
    modified: str

    @property
    def full(self) -> str:
        """The id that clients use, `namespace/name`."""
        return f"{self.namespace}/{self.name}"

    @property
    def url_path(self) -> str:
        """The repository's path below the hub's address; models have no prefix."""
        return self.full if self.kind == "model" else f"{self.kind}s/{self.full}"


def from_row(row: sqlite3.Row) -> Repo:
    """A repository from its row."""
    values = {key: row[key] for key in Repo.__dataclass_fields__}
    return Repo(**{**values, "private": bool(values["private"])})


def find(connection: sqlite3.Connection, kind: str, namespace: str, name: str) -> Repo | None:
    """Return the repository of this name, also under a name it had before it was moved."""
    row = _standing(connection, kind, namespace, name)
    if row is None:
        row = connection.execute(
            "SELECT repos.* FROM repos JOIN moves ON moves.repo = repos.id "
            "WHERE moves.kind = ? AND moves.namespace = ? AND moves.name = ?",
            (kind, namespace, name),
        ).fetchone()
    return from_row(row) if row is not None else None


def _standing(connection: sqlite3.Connection, kind: str, namespace: str, name: str) -> sqlite3.Row | None:
    row: sqlite3.Row | None = connection.execute(
        "SELECT * FROM repos WHERE kind = ? AND namespace = ? AND name = ?", (kind, namespace, name)
    ).fetchone()
    return row


def readable(connection: sqlite3.Connection, caller: Caller, kind: str, full: tuple[str, str]) -> Repo:
    """Return the repository, if this caller may know of it."""
    repo = find(connection, kind, *full)
    if repo is None or (repo.private and not caller.belongs(repo.namespace)):
        raise no_repo(anonymous=caller.anonymous)
    return repo


def writable(connection: sqlite3.Connection, caller: Caller, kind: str, full: tuple[str, str]) -> Repo:
    """Return the repository, if this caller may change it."""
    repo = readable(connection, caller, kind, full)
    if caller.anonymous:
        raise unauthorized("Changing a repository needs a token")
    if not caller.may_write(repo.namespace):
        raise forbidden(
            f"You do not have write access to {repo.full}: ask its owner, or use a token with the write role"
        )
    return repo


def open_gate(connection: sqlite3.Connection, caller: Caller, repo: Repo) -> None:
    """Refuse the content of a gated repository to those who were not let in."""
    if not repo.gated or caller.belongs(repo.namespace):
        return
    row = connection.execute(
        "SELECT status FROM access_requests WHERE repo = ? AND user = ?", (repo.id, caller.id)
    ).fetchone()
    if row is None or row["status"] != "accepted":
        raise HubRefusal(
            "server.gated",
            f"Access to {repo.kind} {repo.full} is restricted: ask for access on its page, or its owner to grant it",
            status=401 if caller.anonymous else 403,
            error_code="GatedRepo",
        )


def may_read_content(connection: sqlite3.Connection, caller: Caller, sha256: str) -> bool:
    """Return whether some repository this caller may read has ever held this content."""
    rows = connection.execute(
        "SELECT repos.* FROM holdings JOIN repos ON repos.id = holdings.repo WHERE holdings.sha256 = ?", (sha256,)
    )
    for row in rows:
        repo = from_row(row)
        if repo.private and not caller.belongs(repo.namespace):
            continue
        try:
            open_gate(connection, caller, repo)
        except HubRefusal:
            continue
        return True
    return False


def _free_name(connection: sqlite3.Connection, caller: Caller, namespace: str) -> str:
    """Return the namespace as it is spelt here; the owner may open a new one."""
    person = accounts.find(connection, check_namespace(namespace))
    if person is not None:
        namespace = person["name"]
    if caller.role == "write" and caller.owner and person is None and caller.id is not None:
        accounts.join(connection, namespace, caller.id, "admin")
    elif not caller.may_write(namespace):
        raise forbidden(f"You do not have the right to create a repository under the namespace {namespace!r}")
    return namespace


def create(
    connection: sqlite3.Connection, caller: Caller, kind: str, full: tuple[str, str], *, private: bool, sdk: str | None
) -> Repo:
    """A new repository without any commit; 409 when there is one of that name."""
    namespace, name = full
    namespace = _free_name(connection, caller, namespace)
    check_name(name, "A repository's name")
    if _standing(connection, kind, namespace, name):
        raise HubRefusal(
            "server.already-exists",
            f"You already created this {kind} repo: {namespace}/{name}",
            status=409,
            error_code="RepoExists",
        )
    connection.execute("DELETE FROM moves WHERE kind = ? AND namespace = ? AND name = ?", (kind, namespace, name))
    moment = now()
    connection.execute(
        "INSERT INTO repos (kind, namespace, name, private, sdk, created, modified) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (kind, namespace, name, private, sdk, moment, moment),
    )
    return readable(connection, caller, kind, (namespace, name))


def move(connection: sqlite3.Connection, caller: Caller, repo: Repo, target: tuple[str, str]) -> None:
    """Give a repository another name; the old one keeps leading to it."""
    namespace = _free_name(connection, caller, target[0])
    name = check_name(target[1], "A repository's name")
    taken = _standing(connection, repo.kind, namespace, name)
    if taken and taken["id"] != repo.id:
        raise HubRefusal(
            "server.already-exists",
            f"There is a {repo.kind} {namespace}/{name} already",
            status=409,
            error_code="RepoExists",
        )
    connection.execute("DELETE FROM moves WHERE kind = ? AND namespace = ? AND name = ?", (repo.kind, namespace, name))
    if (namespace.lower(), name.lower()) != (repo.namespace.lower(), repo.name.lower()):
        connection.execute(
            "INSERT OR REPLACE INTO moves VALUES (?, ?, ?, ?)", (repo.kind, repo.namespace, repo.name, repo.id)
        )
    connection.execute(
        "UPDATE repos SET namespace = ?, name = ?, modified = ? WHERE id = ?", (namespace, name, now(), repo.id)
    )


def delete(connection: sqlite3.Connection, repo: Repo) -> None:
    """Remove a repository and its history; its content stays until the collector comes."""
    connection.execute("DELETE FROM repos WHERE id = ?", (repo.id,))
