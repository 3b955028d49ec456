"""Routes of the xet storage service, as far as uploads need it; downloads are plain HTTP."""

import time

from starlette.responses import Response

from medllm.localhub.errors import HubRefusal, unauthorized
from medllm.localhub.store import repos
from medllm.localhub.validation import check_sha256
from medllm.localhub.web.request import Call, Routes, answer
from medllm.localhub.xet.upload import keep_shard, keep_xorb

routes = Routes()

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
