"""Spaces and other features that this hub only stores or lacks: settings are kept, the rest answers 501 by its name."""

import re
import sqlite3
from collections.abc import Callable
from typing import Literal

from starlette.responses import Response

from medllm.localhub.store import repos
from medllm.localhub.store.accounts import now
from medllm.localhub.store.repos import Repo
from medllm.localhub.validation import HubRefusal, bad_request
from medllm.localhub.web.request import Call, Fields, Routes, answer

Setting = Literal["variable", "secret"]

MOST = 200
"""Settings of one kind that a Space may have."""

LONGEST = 64_000
"""Characters of one value: more than an environment takes would be found out only when the Space starts."""

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")
_MACHINE = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


def put_setting(
    connection: sqlite3.Connection, repo: Repo, kind: Setting, key: str, value: str, description: str | None
) -> None:
    """Set a variable or a secret; of a secret only its name is kept."""
    if not _KEY.fullmatch(key):
        raise bad_request("A variable's name has letters, digits and '_', at most 256, and starts with no digit")
    if len(value) > LONGEST or "\0" in value:
        raise bad_request(f"A variable's value has at most {LONGEST} characters and no NUL")
    stored = value if kind == "variable" else None
    connection.execute(
        "INSERT OR REPLACE INTO space_settings VALUES (?, ?, ?, ?, ?, ?)",
        (repo.id, kind, key, stored, description, now()),
    )
    (count,) = connection.execute(
        "SELECT count(*) FROM space_settings WHERE repo = ? AND kind = ?", (repo.id, kind)
    ).fetchone()
    if count > MOST:
        raise bad_request(f"A Space has at most {MOST} variables and {MOST} secrets")


def drop_setting(connection: sqlite3.Connection, repo: Repo, kind: Setting, key: str) -> None:
    """Delete a variable or a secret; deleting an absent one is no error."""
    connection.execute("DELETE FROM space_settings WHERE repo = ? AND kind = ? AND key = ?", (repo.id, kind, key))


def all_settings(connection: sqlite3.Connection, repo: Repo, kind: Setting) -> dict[str, dict[str, object]]:
    """Return all variables with their values, or all secrets without."""
    rows = connection.execute(
        "SELECT * FROM space_settings WHERE repo = ? AND kind = ? ORDER BY key", (repo.id, kind)
    ).fetchall()
    variables: dict[str, dict[str, object]] = {}
    for row in rows:
        variables[row["key"]] = {"key": row["key"], "description": row["description"], "updatedAt": row["updated"]}
        if kind == "variable":
            variables[row["key"]]["value"] = row["value"]
    return variables


def ask_for(connection: sqlite3.Connection, repo: Repo, hardware: str, sleep: int | None) -> None:
    """Record the machine requested for a Space; this hub provides none."""
    if not _MACHINE.fullmatch(hardware):
        raise bad_request("'flavor' must be the name of a machine, such as cpu-basic")
    connection.execute("INSERT OR REPLACE INTO space_machines VALUES (?, ?, ?)", (repo.id, hardware, sleep))


def runtime_of(connection: sqlite3.Connection, repo: Repo) -> dict[str, object]:
    """Return the runtime of a Space: never running, since this hub does not run Spaces, and the requested machine."""
    row = connection.execute("SELECT * FROM space_machines WHERE repo = ?", (repo.id,)).fetchone()
    return {
        "stage": "NO_APP_FILE",
        "hardware": {"current": None, "requested": row["hardware"] if row else None},
        "storage": None,
        "gcTimeout": row["sleep_seconds"] if row else None,
    }


routes = Routes()

_AREA = "/api/spaces/{namespace}/{name}"
_ONLY_WHERE_IT_RUNS = ("storage", "volumes", "dev-mode")
_SETTINGS: dict[str, Setting] = {"variables": "variable", "secrets": "secret"}


@routes.add("GET", _AREA + "/runtime")
def runtime(call: Call) -> Response:
    """Return the runtime of a Space: never running, with the requested machine."""
    with call.store.database.read() as connection:
        return answer(runtime_of(connection, repos.readable(connection, call.caller, "space", call.full)))


def _settings(word: str, kind: Setting) -> None:
    """Add the three routes of one kind of settings; each needs the right to change the Space."""

    @routes.add("GET", f"{_AREA}/{word}")
    def describe(call: Call) -> Response:
        with call.store.database.read() as connection:
            repo = repos.writable(connection, call.caller, "space", call.full)
            return answer(all_settings(connection, repo, kind))

    def changed(call: Call, change: Callable[[sqlite3.Connection, Repo, Fields], None]) -> Response:
        fields = call.json()
        with call.store.database.write() as connection:
            repo = repos.writable(connection, call.caller, "space", call.full)
            change(connection, repo, fields)
            return answer(all_settings(connection, repo, kind))

    @routes.add("POST", f"{_AREA}/{word}", body="memory")
    def put(call: Call) -> Response:
        return changed(call, lambda connection, repo, fields: _put(connection, repo, kind, fields))

    @routes.add("DELETE", f"{_AREA}/{word}", body="memory")
    def drop(call: Call) -> Response:
        return changed(call, lambda connection, repo, fields: drop_setting(connection, repo, kind, fields.text("key")))


def _put(connection: sqlite3.Connection, repo: Repo, kind: Setting, fields: Fields) -> None:
    put_setting(connection, repo, kind, fields.text("key"), fields.text("value"), fields.optional("description"))


for _word, _kind in _SETTINGS.items():
    _settings(_word, _kind)


@routes.add("POST", f"{_AREA}/hardware", body="memory")
def hardware(call: Call) -> Response:
    """Record the requested machine of a Space."""
    fields = call.json()
    with call.store.database.write() as connection:
        repo = repos.writable(connection, call.caller, "space", call.full)
        _machine(connection, repo, fields.text("flavor"), fields)
        return answer(runtime_of(connection, repo))


def configure_space(connection: sqlite3.Connection, repo: Repo, fields: Fields) -> None:
    """What the body that creates a Space may give it at once."""
    for word, kind in _SETTINGS.items():
        for field in fields.items(word, MOST):
            _put(connection, repo, kind, field)
    wanted = fields.optional("hardware")
    if wanted is not None:
        _machine(connection, repo, wanted, fields)


def _machine(connection: sqlite3.Connection, repo: Repo, wanted: str, fields: Fields) -> None:
    seconds = fields.get("sleepTimeSeconds")
    kept = seconds if isinstance(seconds, int) and -1 <= seconds <= 2**31 else None
    ask_for(connection, repo, wanted, kept)


def _not_run(call: Call) -> Response:
    with call.store.database.read() as connection:
        repos.writable(connection, call.caller, "space", call.full)
    raise HubRefusal(
        "server.spaces-not-run",
        "This hub keeps Spaces but does not run them: start this one with `python app.py`",
        status=501,
        error_code="NotRun",
    )


for _method in ("POST", "DELETE", "GET"):
    routes.add(_method, *(f"{_AREA}/{word}" for word in _ONLY_WHERE_IT_RUNS), body="memory")(_not_run)
routes.add("POST", *(f"{_AREA}/{word}" for word in ("restart", "pause", "sleeptime")), body="memory")(_not_run)


_REPO = "/api/{kinds}/{namespace}/{name}"
ABSENT: dict[str, tuple[str, ...]] = {
    "webhooks": ("/api/settings/webhooks", "/api/settings/webhooks/{rest...}"),
    "likes": (f"{_REPO}/like", f"{_REPO}/likers", "/api/users/{user}/likes"),
    "duplicating a repository": (f"{_REPO}/duplicate", f"{_REPO}/lfs-files/duplicate"),
    "comparing revisions": (f"{_REPO}/compare/{{rest...}}",),
    "sizes of folders": (f"{_REPO}/treesize/{{rest...}}",),
    "security scans": (f"{_REPO}/scan",),
    "discussions and pull requests": (f"{_REPO}/discussions", f"{_REPO}/discussions/{{rest...}}"),
    "leaderboards": ("/api/datasets/{namespace}/{name}/leaderboard",),
    "the dataset viewer and SQL": (
        "/api/datasets/{namespace}/{name}/parquet",
        "/api/datasets/{namespace}/{name}/parquet/{rest...}",
    ),
    "searching Spaces by meaning": ("/api/spaces/semantic-search",),
    "logs and metrics of Spaces": (
        "/api/spaces/{namespace}/{name}/logs/{rest...}",
        "/api/spaces/{namespace}/{name}/metrics",
        "/api/spaces/{namespace}/{name}/events",
    ),
    "papers": ("/api/papers", "/api/papers/{rest...}", "/api/daily_papers"),
    "profiles, followers and members": (
        "/api/users/{user}/overview",
        "/api/users/{user}/followers",
        "/api/users/{user}/following",
        "/api/organizations/{org}/overview",
        "/api/organizations/{org}/members",
        "/api/organizations/{org}/followers",
    ),
    "scheduled jobs": ("/api/scheduled-jobs", "/api/scheduled-jobs/{rest...}"),
    "notifications": ("/api/notifications", "/api/notifications/{rest...}"),
    "posts": ("/api/posts", "/api/posts/{rest...}"),
    "resource groups": (f"{_REPO}/resource-group", "/api/organizations/{org}/resource-groups"),
    "lists of known tags": ("/api/models-tags-by-type", "/api/datasets-tags-by-type"),
    "signing in through the browser (OAuth)": ("/oauth/{rest...}",),
    "git over HTTP": (
        "/{namespace}/{name}.git/info/refs",
        "/{namespace}/{name}.git/git-upload-pack",
        "/{namespace}/{name}.git/git-receive-pack",
        "/{kinds}/{namespace}/{name}.git/info/refs",
    ),
}
"""What is not offered, by its name, and the addresses at which clients ask for it."""


def _absent(what: str) -> Callable[[Call], Response]:
    def refuse(call: Call) -> Response:
        if "kinds" in call.args and "namespace" in call.args:
            with call.store.database.read() as connection:
                repos.readable(connection, call.caller, call.kind, call.full)
        raise HubRefusal(
            "server.not-offered", f"This hub does not offer this: {what}", status=501, error_code="NotOffered"
        )

    return refuse


for _what, _addresses in ABSENT.items():
    for _method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        routes.add(_method, *_addresses)(_absent(_what))
