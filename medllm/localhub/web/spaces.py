"""Routes of Spaces: variables, secrets and hardware are stored; this hub does not run Spaces and reports that."""

import sqlite3
from collections.abc import Callable

from starlette.responses import Response

from medllm.localhub.errors import HubRefusal
from medllm.localhub.store import repos, spaces
from medllm.localhub.store.repos import Repo
from medllm.localhub.store.spaces import Setting
from medllm.localhub.web.request import Call, Fields, Routes, answer

routes = Routes()

_AREA = "/api/spaces/{namespace}/{name}"
_ONLY_WHERE_IT_RUNS = ("storage", "volumes", "dev-mode")
_SETTINGS: dict[str, Setting] = {"variables": "variable", "secrets": "secret"}


@routes.add("GET", _AREA + "/runtime")
def runtime(call: Call) -> Response:
    """Return the runtime of a Space: never running, with the requested machine."""
    with call.store.database.read() as connection:
        return answer(spaces.runtime(connection, repos.readable(connection, call.caller, "space", call.full)))


def _settings(word: str, kind: Setting) -> None:
    """Add the three routes of one kind of settings; each needs the right to change the Space."""

    @routes.add("GET", f"{_AREA}/{word}")
    def describe(call: Call) -> Response:
        with call.store.database.read() as connection:
            repo = repos.writable(connection, call.caller, "space", call.full)
            return answer(spaces.settings(connection, repo, kind))

    def changed(call: Call, change: Callable[[sqlite3.Connection, Repo, Fields], None]) -> Response:
        fields = call.json()
        with call.store.database.write() as connection:
            repo = repos.writable(connection, call.caller, "space", call.full)
            change(connection, repo, fields)
            return answer(spaces.settings(connection, repo, kind))

    @routes.add("POST", f"{_AREA}/{word}", body="memory")
    def put(call: Call) -> Response:
        return changed(call, lambda connection, repo, fields: _put(connection, repo, kind, fields))

    @routes.add("DELETE", f"{_AREA}/{word}", body="memory")
    def drop(call: Call) -> Response:
        return changed(call, lambda connection, repo, fields: spaces.drop(connection, repo, kind, fields.text("key")))


def _put(connection: sqlite3.Connection, repo: Repo, kind: Setting, fields: Fields) -> None:
    spaces.put(connection, repo, kind, fields.text("key"), fields.text("value"), fields.optional("description"))


for _word, _kind in _SETTINGS.items():
    _settings(_word, _kind)


@routes.add("POST", f"{_AREA}/hardware", body="memory")
def hardware(call: Call) -> Response:
    """Record the requested machine of a Space."""
    fields = call.json()
    with call.store.database.write() as connection:
        repo = repos.writable(connection, call.caller, "space", call.full)
        _machine(connection, repo, fields.text("flavor"), fields)
        return answer(spaces.runtime(connection, repo))


def configure_space(connection: sqlite3.Connection, repo: Repo, fields: Fields) -> None:
    """What the body that creates a Space may give it at once."""
    for word, kind in _SETTINGS.items():
        for one in fields.items(word, spaces.MOST):
            _put(connection, repo, kind, one)
    wanted = fields.optional("hardware")
    if wanted is not None:
        _machine(connection, repo, wanted, fields)


def _machine(connection: sqlite3.Connection, repo: Repo, wanted: str, fields: Fields) -> None:
    seconds = fields.get("sleepTimeSeconds")
    kept = seconds if isinstance(seconds, int) and -1 <= seconds <= 2**31 else None
    spaces.ask_for(connection, repo, wanted, kept)


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
