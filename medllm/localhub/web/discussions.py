"""Routes of discussions and pull requests."""

import sqlite3

from starlette.responses import Response

from medllm.localhub.errors import HubRefusal, bad_request, unauthorized
from medllm.localhub.store import pulls, refs, repos
from medllm.localhub.store.repos import Repo
from medllm.localhub.web.request import Call, Routes, answer

routes = Routes()

_AREA = "/api/{kinds}/{namespace}/{name}/discussions"
_PAGE = 50


def _brief(repo: Repo, row: sqlite3.Row) -> dict[str, object]:
    return {
        "num": row["num"],
        "title": row["title"],
        "author": {"name": row["author"]},
        "createdAt": row["created"],
        "status": row["status"],
        "isPullRequest": row["base"] is not None,
        "repo": {"name": repo.full, "type": repo.kind},
    }


def _event(row: sqlite3.Row) -> dict[str, object]:
    content = row["content"]
    if row["kind"] == "comment":
        latest = {"raw": content, "html": "", "updatedAt": row["date"], "author": {"name": row["author"]}}
        data: dict[str, object] = {"edited": False, "hidden": False, "latest": latest, "history": []}
    elif row["kind"] == "title-change":
        old, _, new = content.partition("\n")
        data = {"from": old, "to": new}
    else:
        data = {"status": content}
    return {
        "id": f"{row['id']:024x}",
        "type": row["kind"],
        "createdAt": row["date"],
        "author": {"name": row["author"]},
        "data": data,
    }


@routes.add("GET", _AREA)
def listing(call: Call) -> Response:
    """The discussions of a repository, newest first."""
    where, values = ["repo = ?"], list[object]()
    if call.query.get("type") in ("pull_request", "discussion"):
        where.append(f"base IS {'NOT ' if call.query['type'] == 'pull_request' else ''}NULL")
    if call.query.get("status") in ("open", "closed"):
        where.append(f"status {'' if call.query['status'] == 'open' else 'NOT '}IN ('open', 'draft')")
    if "author" in call.query:
        where.append("author = ?")
        values.append(call.query["author"])
    with call.store.database.read() as connection:
        repo = repos.readable(connection, call.caller, call.kind, call.full)
        rows = connection.execute(
            f"SELECT * FROM discussions WHERE {' AND '.join(where)} ORDER BY num DESC", [repo.id, *values]
        ).fetchall()
    start = call.page_number() * _PAGE
    found = [_brief(repo, row) for row in rows[start : start + _PAGE]]
    return answer({"discussions": found, "count": len(rows), "start": start})


@routes.add("POST", _AREA, body="memory")
def create(call: Call) -> Response:
    """A new discussion, or a pull request that waits for its first commit."""
    fields = call.json()
    title, text = fields.text("title", most=500), fields.text("description", "")
    if call.caller.anonymous or call.caller.role != "write":
        raise unauthorized("Starting a discussion needs a token with the write role")
    with call.store.database.write() as connection:
        repo = repos.readable(connection, call.caller, call.kind, call.full)
        base = refs.resolve(connection, repo, "main") if fields.flag("pullRequest") else None
        number = pulls.create(connection, repo, title=title, author=call.caller.name, base=base, text=text)
    return answer(
        {"num": number, "url": f"{call.base}/{repo.url_path}/discussions/{number}", "pullRequest": bool(base)}
    )


@routes.add("GET", _AREA + "/{num}")
def details(call: Call) -> Response:
    """A discussion with everything that happened in it."""
    with call.store.database.read() as connection:
        repo = repos.readable(connection, call.caller, call.kind, call.full)
        row = pulls.get(connection, repo, call.args["num"])
        events = connection.execute(
            "SELECT * FROM discussion_events WHERE repo = ? AND num = ? ORDER BY id", (repo.id, row["num"])
        ).fetchall()
    result = _brief(repo, row) | {"events": [_event(event) for event in events]}
    if row["base"] is not None:
        changes = {"base": refs.HEADS + "main"} | ({"mergeCommitId": row["merged"]} if row["merged"] else {})
        result |= {"changes": changes, "filesWithConflicts": [], "diff": ""}
    return answer(result)


def _in_discussion(call: Call, connection: sqlite3.Connection) -> tuple[Repo, sqlite3.Row]:
    """The discussion, for its author or for those who may write to the repository."""
    repo = repos.readable(connection, call.caller, call.kind, call.full)
    row = pulls.get(connection, repo, call.args["num"])
    if call.caller.anonymous or call.caller.role != "write" or call.caller.name != row["author"]:
        repos.writable(connection, call.caller, call.kind, call.full)
    return repo, row


@routes.add("POST", _AREA + "/{num}/comment", body="memory")
def comment(call: Call) -> Response:
    """Add a comment to a discussion."""
    text = call.json().text("comment")
    if call.caller.anonymous or call.caller.role != "write":
        raise unauthorized("A comment needs a token with the write role")
    with call.store.database.write() as connection:
        repo = repos.readable(connection, call.caller, call.kind, call.full)
        row = pulls.get(connection, repo, call.args["num"])
        event = pulls.note(connection, repo, row["num"], kind="comment", author=call.caller.name, content=text)
        made = connection.execute("SELECT * FROM discussion_events WHERE id = ?", (event,)).fetchone()
    return answer({"newMessage": _event(made)})


@routes.add("POST", _AREA + "/{num}/status", body="memory")
def change_status(call: Call) -> Response:
    """Open or close a discussion."""
    status = call.json().text("status")
    if status not in ("open", "closed"):
        raise bad_request("'status' must be open or closed")
    with call.store.database.write() as connection:
        repo, row = _in_discussion(call, connection)
        if row["status"] == "merged":
            raise HubRefusal(409, "A merged pull request stays merged", "Conflict")
        key = (status, repo.id, row["num"])
        connection.execute("UPDATE discussions SET status = ? WHERE repo = ? AND num = ?", key)
        event = pulls.note(connection, repo, row["num"], kind="status-change", author=call.caller.name, content=status)
        made = connection.execute("SELECT * FROM discussion_events WHERE id = ?", (event,)).fetchone()
    return answer({"newStatus": _event(made)})


@routes.add("POST", _AREA + "/{num}/title", body="memory")
def rename(call: Call) -> Response:
    """Give a discussion another title."""
    title = call.json().text("title", most=500).replace("\n", " ")
    with call.store.database.write() as connection:
        repo, row = _in_discussion(call, connection)
        connection.execute("UPDATE discussions SET title = ? WHERE repo = ? AND num = ?", (title, repo.id, row["num"]))
        content = f"{row['title']}\n{title}"
        event = pulls.note(connection, repo, row["num"], kind="title-change", author=call.caller.name, content=content)
        made = connection.execute("SELECT * FROM discussion_events WHERE id = ?", (event,)).fetchone()
    return answer({"newTitle": _event(made)})


@routes.add("POST", _AREA + "/{num}/merge", body="memory")
def merge(call: Call) -> Response:
    """Put a pull request's changes on main."""
    text = call.json().text("comment", "")
    with call.store.database.write() as connection:
        repo = repos.writable(connection, call.caller, call.kind, call.full)
        row = pulls.get(connection, repo, call.args["num"])
        made = pulls.merge(connection, repo, row, author=call.caller.name, message=text)
    return answer({"commitOid": made})
