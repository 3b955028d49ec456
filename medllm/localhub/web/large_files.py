"""Routes of large files: sent by git-lfs or xet, listed in a repository's history, and deleted permanently."""

import sqlite3
import time

from starlette.responses import Response

from medllm.localhub.store import blobs, removal, repos, uploads
from medllm.localhub.store.uploads import keep_shard, keep_xorb
from medllm.localhub.validation import HubRefusal, bad_request, check_sha256, forbidden, too_large, unauthorized
from medllm.localhub.web.request import Call, Fields, Routes, answer

routes = Routes()

_DAY = 24 * 3600


def _known(connection: sqlite3.Connection, call: Call, sha256: str, size: int) -> bool:
    """Return whether the content is here and the caller has already sent it or may read it."""
    blob = blobs.find(connection, sha256)
    if blob is None or blob.size != size or call.caller.id is None:
        return False
    mine = blobs.was_sent(connection, call.caller.id, sha256)
    return mine or repos.may_read_content(connection, call.caller, sha256)


def _batch(call: Call, kind: str) -> Response:
    fields = call.json()
    if fields.text("operation") != "upload":
        raise bad_request("Only uploads go through this address: download from /resolve")
    parted = "multipart" in fields.values("transfers")
    objects: list[dict[str, object]] = []
    with call.store.database.write() as connection:
        repos.writable(connection, call.caller, kind, call.full)
        for item in fields.items("objects", 1000):
            sha256, size = check_sha256(item.get("oid")), item.number("size")
            if size > call.store.limits.lfs_file:
                raise too_large(f"The file {sha256}", call.store.limits.lfs_file)
            entry: dict[str, object] = {"oid": sha256, "size": size, "authenticated": True}
            if _known(connection, call, sha256, size):
                blobs.touch(connection, sha256)
            else:
                entry["actions"] = _actions(call, sha256, size, parted=parted)
            objects.append(entry)
    response = answer({"transfer": "basic", "objects": objects})
    response.headers["Content-Type"] = "application/vnd.git-lfs+json"
    return response


def _actions(call: Call, sha256: str, size: int, *, parted: bool) -> dict[str, object]:
    """Where to send a file: the addresses are signed, because clients send no token with the content."""
    limits, user, expires = call.store.limits, call.caller.id or 0, int(time.time()) + _DAY

    def address(part: str) -> str:
        signature = call.store.sign("lfs", user, sha256, size, part, expires)
        return f"{call.base}/lfs/{user}/{sha256}/{size}/{part}?expires={expires}&signature={signature}"

    verify = {"href": f"{call.base}{call.path.removesuffix('/batch')}/verify", "header": {}}
    if not parted or size <= limits.lfs_parted_above:
        return {"upload": {"href": address("whole"), "header": {}}, "verify": verify}
    count = -(-size // limits.lfs_part)
    header = {"chunk_size": str(limits.lfs_part)} | {
        str(number): address(str(number)) for number in range(1, count + 1)
    }
    return {"upload": {"href": address("complete"), "header": header}, "verify": verify}


def _verify(call: Call, kind: str) -> Response:
    fields = call.json()
    sha256, size = check_sha256(fields.get("oid")), fields.number("size")
    with call.store.database.read() as connection:
        repos.writable(connection, call.caller, kind, call.full)
        if not _known(connection, call, sha256, size):
            raise HubRefusal(
                "server.not-uploaded",
                f"The file {sha256} of {size} bytes was not uploaded",
                status=404,
                error_code="EntryNotFound",
            )
    return answer({})


def _routes_of(kind: str) -> None:
    area = f"/{'' if kind == 'model' else kind + 's/'}{{namespace}}/{{name}}.git/info/lfs/objects"

    @routes.add("POST", area + "/batch", body="memory")
    def batch(call: Call) -> Response:
        return _batch(call, kind)

    @routes.add("POST", area + "/verify", body="memory")
    def verify(call: Call) -> Response:
        return _verify(call, kind)


for _kind in ("dataset", "space", "model"):
    _routes_of(_kind)


def _signed(call: Call) -> tuple[int, str, int, str]:
    """Verify the signature of an upload address and return what may be sent to it."""
    user, sha256, size, part = (call.args[name] for name in ("user", "sha256", "size", "part"))
    expires, signature = call.query.get("expires", ""), call.query.get("signature", "")
    if not call.store.is_signed(signature, "lfs", user, sha256, size, part, expires):
        raise forbidden("The signature of this address is not the hub's")
    if int(expires) < time.time():
        raise forbidden("This address is out of date: ask for a new one")
    return int(user), sha256, int(size), part


def _most(call: Call) -> int:
    """Return the size limit of an upload address: the promised size, or one part of it."""
    size, limits = int(call.args["size"]), call.store.limits
    return size if call.args["part"] == "whole" else min(size, limits.lfs_part)


@routes.add("PUT", "/lfs/{user}/{sha256}/{size}/{part}", body="spool", limit=_most, guard=_signed)
def receive(call: Call) -> Response:
    """Receive the content of a file, or of one part of it."""
    user, sha256, size, part = _signed(call)
    if part == "whole":
        if (call.spool.size, call.spool.sha256) != (size, sha256):
            raise bad_request(f"These {call.spool.size} bytes are not the {size} bytes with the sha256 {sha256}")
        uploads.keep_whole(call.store, user, call.spool)
    elif part.isdigit():
        uploads.keep_part(call.store, uploads.Upload(user, sha256, size), int(part), call.spool)
    else:
        raise bad_request("This address takes a POST")
    return Response(status_code=200, headers={"ETag": f'"{call.spool.sha256}"'})


@routes.add("POST", "/lfs/{user}/{sha256}/{size}/{part}", body="memory")
def complete(call: Call) -> Response:
    """Join the parts of a file after all are sent; together they must be the promised file."""
    user, sha256, size, part = _signed(call)
    if part != "complete":
        raise bad_request("This address takes a PUT")
    numbers = [Fields.number(item, "partNumber") for item in call.json().items("parts", 100_000)]
    with call.store.lock(f"parts {user} {sha256}"):
        uploads.join(call.store, uploads.Upload(user, sha256, size), sorted(numbers))
    return answer({"success": True})


_HOUR = 3600


def grant(call: Call) -> Response:
    """A token for the storage service.

    Clients remember, per address of the service, what they have sent to it. The address names the store and the
    user, so that a new store on the same port, or another user's, is never taken for the one they remember.
    """
    user, expires = call.caller.id, int(time.time()) + _HOUR
    if user is None:
        raise unauthorized("Uploading needs a token")
    token = f"{user}.{expires}.{call.store.sign('cas', user, expires)}"
    address = f"{call.base}/cas/{call.store.storage_id()}/{user}"
    headers = {"X-Xet-Cas-Url": address, "X-Xet-Access-Token": token, "X-Xet-Token-Expiration": str(expires)}
    return answer({"casUrl": address, "exp": expires, "accessToken": token}, headers=headers)


@routes.add("GET", "/api/{kinds}/{namespace}/{name}/xet-write-token/{revision...}")
def write_token(call: Call) -> Response:
    """Issue a token for sending content to a repository."""
    with call.store.database.read() as connection:
        repos.writable(connection, call.caller, call.kind, call.full)
    return grant(call)


def _user(call: Call) -> int:
    """Return the user whose storage this is, if the token is valid for it."""
    scheme, _, token = call.headers.get("authorization", "").partition(" ")
    user, _, rest = token.strip().partition(".")
    expires, _, signature = rest.partition(".")
    good = (
        scheme.lower() == "bearer"
        and user == call.args["user"]
        and call.store.is_signed(signature, "cas", user, expires)
    )
    if not good or int(expires) < time.time():
        raise unauthorized("The token is not one for this storage, or out of date")
    if call.args["store"] != call.store.storage_id():
        raise HubRefusal("server.storage-gone", "This storage is not here any more", status=404, error_code="NotFound")
    return int(user)


@routes.add(
    "POST",
    "/cas/{store}/{user}/v1/xorbs/{prefix}/{hash}",
    body="spool",
    limit=lambda call: call.store.limits.xorb,
    lane="content",
    guard=_user,
)
def xorb(call: Call) -> Response:
    """Store an uploaded xorb under its hash."""
    user = _user(call)
    return answer({"was_inserted": keep_xorb(call.store, user, check_sha256(call.args["hash"]), call.spool)})


@routes.add(
    "POST",
    "/cas/{store}/{user}/v1/shards",
    body="spool",
    limit=lambda call: call.store.limits.shard,
    lane="shards",
    guard=_user,
)
def shard(call: Call) -> Response:
    """Make a shard's files blobs."""
    keep_shard(call.store, _user(call), call.spool)
    return answer({"result": 1})


_AREA = "/api/{kinds}/{namespace}/{name}/lfs-files"


@routes.add("GET", _AREA)
def listing(call: Call) -> Response:
    """List every large file that the repository has ever held, one page at a time."""
    limit = call.store.limits.page
    start = call.number("cursor", 0, 10**9) if "cursor" in call.query else 0
    with call.store.database.read() as connection:
        repo = repos.writable(connection, call.caller, call.kind, call.full)
        files = removal.large_files(connection, repo)
    entries = [
        {
            "fileOid": file.sha256,
            "oid": file.sha256,
            "filename": file.path,
            "size": file.size,
            "pushedAt": file.date,
            "pusher": {"name": file.author, "fullname": file.author, "type": "user"},
            "ref": file.reference,
        }
        for file in files[start : start + limit]
    ]
    return answer(entries, headers=call.next_page(start + limit if start + limit < len(files) else None))


@routes.add("POST", _AREA + "/batch", body="memory")
def remove(call: Call) -> Response:
    """Rewrite the history without these files, and erase their bytes unless other content uses them."""
    wanted = Fields(call.json().get("deletions"))
    gone = {check_sha256(text) for text in wanted.texts("sha", 1000)}
    if not wanted.flag("rewriteHistory", True):
        raise HubRefusal(
            "server.not-offered",
            "This hub does not offer this: deletion without rewriting the history",
            status=501,
            error_code="NotOffered",
        )
    with call.store.database.write() as connection:
        repo = repos.writable(connection, call.caller, call.kind, call.full)
        gone &= {large_file.sha256 for large_file in removal.large_files(connection, repo)}
        files = removal.take_down(call.store, connection, repo, gone) if gone else set()
    removal.erase(call.store, files)
    return answer({"success": True, "deleted": len(gone)})
