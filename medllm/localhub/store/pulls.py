"""Discussions and pull requests: a reference beside main that its author's changes wait on."""

import sqlite3

from medllm.localhub.errors import HubRefusal
from medllm.localhub.store import commits, refs, trees
from medllm.localhub.store.accounts import now
from medllm.localhub.store.commits import Header
from medllm.localhub.store.repos import Repo
from medllm.localhub.store.trees import Node, TreeChange


def create(connection: sqlite3.Connection, repo: Repo, *, title: str, author: str, base: str | None, text: str) -> int:
    """The number of a new discussion; with a base it is a pull request, whose reference starts there."""
    row = connection.execute(
        "SELECT COALESCE(MAX(num), 0) + 1 AS next FROM discussions WHERE repo = ?", (repo.id,)
    ).fetchone()
    number = int(row["next"])
    connection.execute(
        "INSERT INTO discussions VALUES (?, ?, ?, ?, ?, ?, NULL, ?)",
        (repo.id, number, title[:500], author, "draft" if base else "open", base, now()),
    )
    if base:
        refs.put(connection, repo, f"{refs.PULLS}{number}", base)
    if text:
        note(connection, repo, number, kind="comment", author=author, content=text)
    return number


def note(connection: sqlite3.Connection, repo: Repo, number: int, *, kind: str, author: str, content: str) -> int:
    """Write down what happened in a discussion; its number is given back."""
    cursor = connection.execute(
        "INSERT INTO discussion_events (repo, num, kind, author, content, date) VALUES (?, ?, ?, ?, ?, ?)",
        (repo.id, number, kind, author, content, now()),
    )
    return int(cursor.lastrowid or 0)


def get(connection: sqlite3.Connection, repo: Repo, number: str) -> sqlite3.Row:
    """The row of a discussion."""
    row: sqlite3.Row | None = None
    if number.isascii() and number.isdigit() and len(number) < 10:
        row = connection.execute(
            "SELECT * FROM discussions WHERE repo = ? AND num = ?", (repo.id, int(number))
        ).fetchone()
    if row is None:
        raise HubRefusal(404, f"There is no discussion {number[:20]} in {repo.full}", "EntryNotFound")
    return row


def merge(connection: sqlite3.Connection, repo: Repo, row: sqlite3.Row, *, author: str, message: str) -> str:
    """Put a pull request's changes on main; a file that main has changed since is a conflict."""
    head = refs.target(connection, repo, f"{refs.PULLS}{row['num']}")
    main = refs.target(connection, repo, refs.HEADS + "main")
    if row["base"] is None or head is None or main is None or row["status"] in ("merged", "closed"):
        raise HubRefusal(409, f"Discussion {row['num']} is not an open pull request", "Conflict")
    before, theirs, ours = (
        trees.files(connection, commits.tree_of(connection, repo, one)) for one in (row["base"], head, main)
    )
    changed = [path for path in before.keys() | theirs.keys() if before.get(path) != theirs.get(path)]
    conflicts = sorted(path for path in changed if ours.get(path) not in (before.get(path), theirs.get(path)))
    if conflicts:
        raise HubRefusal(409, f"main has changed since in: {', '.join(conflicts[:5])}", "Conflict")
    tree = _with(
        connection, commits.tree_of(connection, repo, main), {path: theirs.get(path) for path in changed}, ours
    )
    header = Header(f"{row['title']} (#{row['num']})", message)
    made = commits.record(connection, repo, parent=main, tree=tree, header=header, author=author)
    refs.put(connection, repo, refs.HEADS + "main", made)
    connection.execute("UPDATE repos SET modified = ? WHERE id = ?", (now(), repo.id))
    connection.execute(
        "UPDATE discussions SET status = 'merged', merged = ? WHERE repo = ? AND num = ?", (made, repo.id, row["num"])
    )
    note(connection, repo, row["num"], kind="status-change", author=author, content="merged")
    return made


def _with(connection: sqlite3.Connection, root: str, changes: dict[str, Node | None], ours: dict[str, Node]) -> str:
    plan = TreeChange()
    for path, node in changes.items():
        if node is None and path in ours:
            plan.remove(path)
    for path, node in changes.items():
        if node is not None:
            plan.set(path, node)
    return trees.edit(connection, root, plan)
