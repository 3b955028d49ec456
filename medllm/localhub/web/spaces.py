"""Routes of Spaces: they are kept like any repository, but this hub does not run them, and says so."""

from starlette.responses import Response

from medllm.localhub.refusal import Refusal
from medllm.localhub.store import repos
from medllm.localhub.web.call import Call, Routes, answer
from medllm.localhub.web.describe import RUNTIME

routes = Routes()

_AREA = "/api/spaces/{namespace}/{name}"
_ONLY_WHERE_IT_RUNS = ("secrets", "variables", "hardware", "sleeptime", "storage", "volumes", "dev-mode")


@routes.add("GET", _AREA + "/runtime")
def runtime(call: Call) -> Response:
    """Where a Space runs: nowhere."""
    with call.store.database.read() as connection:
        repos.readable(connection, call.caller, "space", call.full)
    return answer(RUNTIME)


def _not_run(call: Call) -> Response:
    with call.store.database.read() as connection:
        repos.writable(connection, call.caller, "space", call.full)
    raise Refusal(501, "This hub keeps Spaces but does not run them: start this one with `python app.py`", "NotRun")


for _method in ("POST", "DELETE", "GET"):
    routes.add(_method, *(f"{_AREA}/{word}" for word in _ONLY_WHERE_IT_RUNS), body="memory")(_not_run)
routes.add("POST", f"{_AREA}/restart", f"{_AREA}/pause", body="memory")(_not_run)
