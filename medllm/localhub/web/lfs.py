"""Routes of large files as git-lfs sends them: one signed address for a file, or one for each of its parts."""

import sqlite3
import time

from starlette.responses import Response

from medllm.localhub.errors import HubRefusal, bad_request, forbidden, too_large
from medllm.localhub.store import blobs, multipart, repos
from medllm.localhub.validation import check_sha256
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
    found: list[dict[str, object]] = []
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
            found.append(entry)
    response = answer({"transfer": "basic", "objects": found})
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
        multipart.keep_whole(call.store, user, call.spool)
    elif part.isdigit():
        multipart.keep_part(call.store, multipart.Upload(user, sha256, size), int(part), call.spool)
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
        multipart.join(call.store, multipart.Upload(user, sha256, size), sorted(numbers))
    return answer({"success": True})
