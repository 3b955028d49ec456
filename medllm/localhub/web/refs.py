"""Routes of branches, tags and the list of references."""

from starlette.responses import Response

from medllm.localhub.errors import no_revision
from medllm.localhub.store import refs, repos
from medllm.localhub.web.request import Call, Routes, answer

routes = Routes()

_AREA = "/api/{kinds}/{namespace}/{name}"


@routes.add("GET", _AREA + "/refs")
def listing(call: Call) -> Response:
    """List every branch and tag; a client that asks for pull requests gets an empty list, as there are none here."""
    with call.store.database.read() as connection:
        repo = repos.readable(connection, call.caller, call.kind, call.full)
        found = {
            key: [
                {"name": name, "ref": full, "targetCommit": commit}
                for name, full, commit in refs.listing(connection, repo, prefix)
            ]
            for key, prefix in (("branches", refs.HEADS), ("tags", refs.TAGS))
        }
    if call.flag("include_prs") or call.flag("include_pull_requests"):
        found["pullRequests"] = []
    return answer({"converts": [], **found})


@routes.add("POST", _AREA + "/branch/{branch...}", body="memory")
def create_branch(call: Call) -> Response:
    """A new branch, from main's head or another revision."""
    start = call.json().optional("startingPoint")
    with call.store.database.write() as connection:
        repo = repos.writable(connection, call.caller, call.kind, call.full)
        commit = refs.resolve(connection, repo, start or "main")
        refs.create(connection, repo, refs.HEADS, call.args["branch"], commit)
    return answer({})


@routes.add("DELETE", _AREA + "/branch/{branch...}")
def delete_branch(call: Call) -> Response:
    """Remove a branch of a repository."""
    with call.store.database.write() as connection:
        repo = repos.writable(connection, call.caller, call.kind, call.full)
        refs.delete(connection, repo, refs.HEADS, call.args["branch"])
    return answer({})


@routes.add("POST", _AREA + "/tag/{revision...}", body="memory")
def create_tag(call: Call) -> Response:
    """A new tag on a revision."""
    name = call.json().text("tag", most=300)
    with call.store.database.write() as connection:
        repo = repos.writable(connection, call.caller, call.kind, call.full)
        refs.create(connection, repo, refs.TAGS, name, refs.resolve(connection, repo, call.args["revision"]))
    return answer({})


@routes.add("DELETE", _AREA + "/tag/{tag...}")
def delete_tag(call: Call) -> Response:
    """Remove a tag of a repository."""
    with call.store.database.write() as connection:
        repo = repos.writable(connection, call.caller, call.kind, call.full)
        if not call.args["tag"]:
            raise no_revision("")
        refs.delete(connection, repo, refs.TAGS, call.args["tag"])
    return answer({})
