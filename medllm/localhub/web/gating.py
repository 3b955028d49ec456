"""Routes of gated repositories: access requests and the decisions on them."""

import sqlite3

from starlette.responses import Response

from medllm.localhub.store import accounts, repos
from medllm.localhub.store.accounts import now
from medllm.localhub.store.repos import Repo
from medllm.localhub.validation import HubRefusal, bad_request, unauthorized
from medllm.localhub.web.request import Call, Fields, Routes, answer

routes = Routes()

_AREA = "/api/{kinds}/{namespace}/{name}/user-access-request"
_STATES = ("pending", "accepted", "rejected")


def _put(connection: sqlite3.Connection, repo: Repo, user: int, status: str) -> None:
    connection.execute("INSERT OR REPLACE INTO access_requests VALUES (?, ?, ?, ?)", (repo.id, user, status, now()))


def _status(connection: sqlite3.Connection, repo: Repo, user: int) -> str | None:
    row = connection.execute("SELECT status FROM access_requests WHERE repo = ? AND user = ?", (repo.id, user))
    status = row.fetchone()
    return None if status is None else str(status["status"])


def _ask(call: Call, kind: str) -> Response:
    user = call.caller.id
    if user is None:
        raise unauthorized("Asking for access needs a token")
    with call.store.database.write() as connection:
        repo = repos.readable(connection, call.caller, kind, call.full)
        if not repo.gated:
            raise bad_request(f"{repo.full} is not gated: everyone who sees it may read it")
        row = connection.execute(
            "SELECT status FROM access_requests WHERE repo = ? AND user = ?", (repo.id, user)
        ).fetchone()
        status = "accepted" if repo.gated == "auto" else "pending"
        if row is None or (row["status"] == "pending" and status == "accepted"):
            _put(connection, repo, user, status)
        else:
            status = row["status"]
    return answer({"status": status})


def _asking(kind: str) -> None:
    prefix = "" if kind == "model" else f"{kind}s/"

    @routes.add("POST", f"/{prefix}{{namespace}}/{{name}}/ask-access", body="memory")
    def ask(call: Call) -> Response:
        return _ask(call, kind)


for _kind in ("dataset", "space", "model"):
    _asking(_kind)


@routes.add("GET", _AREA + "/{status}")
def requests(call: Call) -> Response:
    """List the access requests with their decisions."""
    status = call.args["status"]
    if status not in _STATES:
        raise bad_request(f"The status must be one of {', '.join(_STATES)}")
    with call.store.database.read() as connection:
        repo = repos.writable(connection, call.caller, call.kind, call.full)
        rows = connection.execute(
            "SELECT people.id, people.name, access_requests.date FROM access_requests "
            "JOIN people ON people.id = access_requests.user WHERE repo = ? AND status = ? ORDER BY date",
            (repo.id, status),
        ).fetchall()
    entries = [
        {
            "requestId": f"{row['id']:024x}",
            "user": {"user": row["name"], "fullname": row["name"], "email": None},
            "status": status,
            "timestamp": row["date"],
            "fields": {},
        }
        for row in rows
    ]
    return answer(entries)


def _person(connection: sqlite3.Connection, fields: Fields) -> int:
    name = fields.optional("user")
    number = fields.optional("userId") or fields.optional("requestId")
    if name is not None:
        row = accounts.find(connection, name)
    elif number is not None and 0 < len(number) <= 24 and all(sign in "0123456789abcdef" for sign in number):
        row = connection.execute("SELECT * FROM people WHERE id = ?", (min(int(number, 16), 2**62),)).fetchone()
    else:
        raise bad_request("'user' must name a user")
    if row is None or row["kind"] != "user":
        raise HubRefusal(
            "server.no-such-user", "There is no such user on this hub", status=404, error_code="UserNotFound"
        )
    return int(row["id"])


@routes.add("POST", _AREA + "/handle", body="memory")
def decide(call: Call) -> Response:
    """Accept or reject an access request, or set it back to pending."""
    fields = call.json()
    status = fields.text("status")
    if status not in _STATES:
        raise bad_request(f"The status must be one of {', '.join(_STATES)}")
    with call.store.database.write() as connection:
        repo = repos.writable(connection, call.caller, call.kind, call.full)
        user = _person(connection, fields)
        row = connection.execute(
            "SELECT status FROM access_requests WHERE repo = ? AND user = ?", (repo.id, user)
        ).fetchone()
        if row is None:
            raise HubRefusal(
                "server.no-access-request",
                "This user has not asked for access",
                status=404,
                error_code="RequestNotFound",
            )
        if row["status"] == status:
            raise bad_request(f"The access request of this user is {status} already")
        _put(connection, repo, user, status)
    return answer({"status": status})


@routes.add("POST", _AREA + "/grant", body="memory")
def grant(call: Call) -> Response:
    """Grant access to a user without a request."""
    fields = call.json()
    with call.store.database.write() as connection:
        repo = repos.writable(connection, call.caller, call.kind, call.full)
        user = _person(connection, fields)
        if _status(connection, repo, user) == "accepted":
            raise bad_request("This user has access already")
        _put(connection, repo, user, "accepted")
    return answer({"status": "accepted"})
