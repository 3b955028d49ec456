"""Routes that delete large files permanently: list those in a repository's history, and remove some of them."""

from starlette.responses import Response

from medllm.localhub.errors import HubRefusal
from medllm.localhub.store import repos, takedown
from medllm.localhub.validation import check_sha256
from medllm.localhub.web.request import Call, Fields, Routes, answer

routes = Routes()

_AREA = "/api/{kinds}/{namespace}/{name}/lfs-files"


@routes.add("GET", _AREA)
def listing(call: Call) -> Response:
    """List every large file that the repository has ever held, one page at a time."""
    limit = call.store.limits.page
    start = call.number("cursor", 0, 10**9) if "cursor" in call.query else 0
    with call.store.database.read() as connection:
        repo = repos.writable(connection, call.caller, call.kind, call.full)
        files = takedown.large_files(connection, repo)
    found = [
        {
            "fileOid": one.sha256,
            "oid": one.sha256,
            "filename": one.path,
            "size": one.size,
            "pushedAt": one.date,
            "pusher": {"name": one.author, "fullname": one.author, "type": "user"},
            "ref": one.reference,
        }
        for one in files[start : start + limit]
    ]
    return answer(found, headers=call.next_page(start + limit if start + limit < len(files) else None))


@routes.add("POST", _AREA + "/batch", body="memory")
def remove(call: Call) -> Response:
    """Rewrite the history without these files, and erase their bytes unless other content uses them."""
    wanted = Fields(call.json().get("deletions"))
    gone = {check_sha256(one) for one in wanted.texts("sha", 1000)}
    if not wanted.flag("rewriteHistory", True):
        raise HubRefusal(
            "server.not-offered",
            "This hub does not offer this: deletion without rewriting the history",
            status=501,
            error_code="NotOffered",
        )
    with call.store.database.write() as connection:
        repo = repos.writable(connection, call.caller, call.kind, call.full)
        gone &= {one.sha256 for one in takedown.large_files(connection, repo)}
        files = takedown.take_down(call.store, connection, repo, gone) if gone else set()
    takedown.erase(call.store, files)
    return answer({"success": True, "deleted": len(gone)})
