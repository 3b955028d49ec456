"""References: branches, tags and pull requests, and which commit a revision means."""

import re
import sqlite3

from medllm.localhub.store.repos import Repo
from medllm.localhub.validation import HubRefusal, bad_request, check_reference, no_revision

_COMMIT = re.compile(r"[0-9a-f]{7,40}")
HEADS, TAGS = "refs/heads/", "refs/tags/"


def target(connection: sqlite3.Connection, repo: Repo, reference: str) -> str | None:
    """Return the commit a full reference points to, or None."""
    row = connection.execute("SELECT target FROM refs WHERE repo = ? AND name = ?", (repo.id, reference)).fetchone()
    return str(row["target"]) if row is not None else None


def resolve(connection: sqlite3.Connection, repo: Repo, revision: str) -> str:
    """Return the commit that a branch, tag, full reference or (the start of) a commit id means."""
    names = [revision] if revision.startswith("refs/") else [HEADS + revision, TAGS + revision]
    for name in names:
        if commit := target(connection, repo, name):
            return commit
    if _COMMIT.fullmatch(revision):
        rows = connection.execute(
            "SELECT id FROM commits WHERE repo = ? AND id >= ? AND id < ? LIMIT 2", (repo.id, revision, revision + "g")
        ).fetchall()
        if len(rows) == 1:
            return str(rows[0]["id"])
    raise no_revision(revision)


def shown(revision: str, commit: str) -> str:
    """Return the commit id that an answer names: a tag that is itself a commit id, as of a mirror, or the commit.

    Clients that pin a commit file what they get under the id that they asked for.
    """
    return revision if re.fullmatch(r"[0-9a-f]{40}", revision) else commit


def writable(connection: sqlite3.Connection, repo: Repo, revision: str) -> str:
    """Return the full reference that a commit to this revision moves: a branch or a pull request, never a tag."""
    name = revision if revision.startswith("refs/") else HEADS + revision
    if name.startswith(HEADS) and target(connection, repo, name):
        return name
    raise no_revision(revision)


def put(connection: sqlite3.Connection, repo: Repo, reference: str, commit: str) -> None:
    """Point a reference to a commit."""
    connection.execute("INSERT OR REPLACE INTO refs VALUES (?, ?, ?)", (repo.id, reference, commit))


def create(connection: sqlite3.Connection, repo: Repo, prefix: str, name: str, commit: str) -> None:
    """Create a branch or tag; 409 when the name exists already."""
    reference = prefix + check_reference(name)
    if target(connection, repo, reference):
        raise HubRefusal(
            "server.already-exists", f"Reference already exists: {reference}", status=409, error_code="ReferenceExists"
        )
    put(connection, repo, reference, commit)


def delete(connection: sqlite3.Connection, repo: Repo, prefix: str, name: str) -> None:
    """Remove a branch or tag; main stays."""
    reference = prefix + name
    if reference == HEADS + "main":
        raise bad_request("The branch main cannot be deleted")
    if not target(connection, repo, reference):
        raise no_revision(name)
    connection.execute("DELETE FROM refs WHERE repo = ? AND name = ?", (repo.id, reference))


def listing(connection: sqlite3.Connection, repo: Repo, prefix: str) -> list[tuple[str, str, str]]:
    """Short name, full name and commit of every reference of a sort."""
    rows = connection.execute(
        "SELECT name, target FROM refs WHERE repo = ? AND name >= ? AND name < ? ORDER BY name",
        (repo.id, prefix, prefix + "\U0010ffff"),
    )
    return [(row["name"][len(prefix) :], row["name"], row["target"]) for row in rows]
