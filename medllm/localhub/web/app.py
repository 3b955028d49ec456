"""The ASGI application: bounds connections, receives a request, runs its route in a thread, reports every error."""

import asyncio
import base64
import ipaddress
import logging
import re
import secrets
import sqlite3
import time
from contextlib import ExitStack
from typing import Any
from urllib.parse import unquote

import anyio
import anyio.to_thread
from starlette.datastructures import Headers, QueryParams
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from medllm.localhub.store.accounts import Caller
from medllm.localhub.store.blobs import Spool, is_full
from medllm.localhub.store.store import Store
from medllm.localhub.validation import (
    MIB,
    HubRefusal,
    ServerLimits,
    bad_request,
    disk_full,
    no_repo,
    too_large,
    unauthorized,
)
from medllm.localhub.web.request import Call, Route, answer, find_route, lacks_namespace


def connection_class(limits: ServerLimits) -> type[asyncio.Protocol]:
    """Return the class of one hub's connections; `waiting` holds those whose headers are not complete, oldest first."""
    waiting: dict[Any, asyncio.TimerHandle] = {}
    plain: Any = AutoHTTPProtocol

    class Connection(plain):  # type: ignore[misc]  # uvicorn chooses the parser, and with it the class, when it starts
        """Closes itself when headers come too slowly or are too long, or when others wait for its place."""

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self._unread = 0
            if len(self.connections) > limits.connections:
                silent = (
                    connection for connection in self.connections if connection is not self and connection._is_idle()
                )
                (next(iter(waiting), None) or next(silent, self))._give_up()
            if not transport.is_closing():
                self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if not self._is_idle():
                self._end_waiting()
                self._unread = 0
                return
            self._unread += len(data)
            if self._unread > limits.header_bytes:
                self._give_up()
            elif self not in waiting:
                self._wait()

        def connection_lost(self, exc: Exception | None) -> None:
            self._end_waiting()
            super().connection_lost(exc)

        def _is_idle(self) -> bool:
            """Whether no request is being answered: the next one has not come, or its headers are not complete."""
            return self.cycle is None or bool(self.cycle.response_complete)

        def _wait(self) -> None:
            waiting[self] = self.loop.call_later(limits.header_seconds, self._give_up)

        def _end_waiting(self) -> None:
            timer = waiting.pop(self, None)
            if timer is not None:
                timer.cancel()

        def _give_up(self) -> None:
            self._end_waiting()
            if self._is_idle():
                self.transport.abort()

    return Connection


log = logging.getLogger("medllm.localhub")

_DRAINED, _DRAIN_SECONDS = 16 * MIB, 5.0


class App:
    """One hub as an ASGI application."""

    def __init__(self, store: Store, routes: list[Route], *, public: bool, extras: object = None) -> None:
        self._store = store
        self._routes = routes
        self._public = public
        """Whether other machines can reach the hub: then every request needs a token."""
        self._extras = extras
        self._workers = anyio.CapacityLimiter(40)
        self._lanes = {"commits": anyio.CapacityLimiter(2), "content": anyio.CapacityLimiter(2)}
        self._shards = anyio.CapacityLimiter(4)
        self._shards_of: dict[str, anyio.CapacityLimiter] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            with ExitStack() as stack:
                response = await self._answer(scope, _Body(scope, receive, self._store), stack)
                await response(scope, receive, send)

    async def _answer(self, scope: Scope, body: "_Body", stack: ExitStack) -> Response:
        try:
            return await self._run(scope, body, stack)
        except HubRefusal as refusal:
            await body.drain()
            return refuse(refusal)
        except ClientDisconnect:
            return refuse(bad_request("The client went away in the middle of its request"))
        except (sqlite3.Error, OSError) as fault:
            if (isinstance(fault, OSError) and is_full(fault)) or "full" in str(fault):
                return refuse(disk_full())
            log.exception("%s %s failed", scope["method"], scope["path"])
            return refuse(
                HubRefusal(
                    "server.internal",
                    "The hub failed on its own store; the hub's log shows where",
                    status=500,
                    error_code="Internal",
                )
            )
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])
            return refuse(
                HubRefusal(
                    "server.internal", "The hub failed; the hub's log shows where", status=500, error_code="Internal"
                )
            )

    async def _run(self, scope: Scope, body: "_Body", stack: ExitStack) -> Response:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._public and not is_loopback(re.sub(r":\d+$", "", host).strip("[]")):
            # DNS rebinding: a web page can point any host name at 127.0.0.1, so only loopback's own names are served.
            raise HubRefusal(
                "server.wrong-host",
                "This hub answers to 127.0.0.1 and localhost only",
                status=421,
                error_code="Misdirected",
            )
        parts = _parts(scope)
        caller = await anyio.to_thread.run_sync(self._identify, headers, parts, scope["method"], limiter=self._workers)
        route, args = self._find(scope["method"], parts, caller)
        call = Call(self._store, scope["method"], f"http://{host}", headers, QueryParams(scope["query_string"]), caller)
        call.args, call.extras = args, self._extras
        call.path = (scope.get("raw_path") or b"/").decode("ascii").split("?")[0]
        if route.guard is not None:
            await anyio.to_thread.run_sync(route.guard, call, limiter=self._workers)
        limit = route.limit(call) if route.limit else self._store.limits.json_body
        if route.body == "memory" and caller.anonymous and parts[:1] not in (["lfs"], ["cas"]):
            limit = min(limit, self._store.limits.anonymous_body)
        if route.body != "none" and body.declared > limit:
            raise too_large("The body", limit)
        if route.body == "memory":
            call.body = await body.read(limit)
        elif route.body == "spool":
            call.spooled = stack.enter_context(self._store.files.spool(limit, "The body", expected=body.declared))
            await body.pour(call.spooled)
        return await self._work(route, call)

    def _find(self, method: str, parts: list[str], caller: Caller) -> tuple[Route, dict[str, str]]:
        """Find the route; a repository name without a namespace counts as a missing repository."""
        try:
            return find_route(self._routes, method, parts)
        except HubRefusal:
            if lacks_namespace(parts):
                raise no_repo(anonymous=caller.anonymous) from None
            raise

    async def _work(self, route: Route, call: Call) -> Response:
        """Run the handler in its lane, so that one kind of heavy work never makes another kind wait."""
        if route.lane != "shards":
            limiter = self._lanes[route.lane] if route.lane else self._workers
            return await anyio.to_thread.run_sync(route.handler, call, limiter=limiter)
        user = call.args["user"]
        own = self._shards_of.setdefault(user, anyio.CapacityLimiter(1))  # the guard has proved that the user exists
        async with own:
            return await anyio.to_thread.run_sync(route.handler, call, limiter=self._shards)

    def _identify(self, headers: Headers, parts: list[str], method: str) -> Caller:
        """Identify the caller. LFS and CAS addresses are signed and carry no user token."""
        signed = parts[:1] in (["lfs"], ["cas"])
        secret = None if signed else _secret(headers, browsing=method in ("GET", "HEAD") and parts[:1] != ["api"])
        caller = self._store.identify(secret)
        if caller is None:
            raise unauthorized("Invalid credentials in Authorization header")
        if self._public and caller.anonymous and not signed:
            raise unauthorized("This hub requires a token for every request")
        return caller


def _secret(headers: Headers, *, browsing: bool) -> str | None:
    """Read the token of a request. A browser resends a password unasked, so it counts only for read requests."""
    scheme, _, secret = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return secret.strip()
    if scheme.lower() == "basic" and browsing:
        try:
            return base64.b64decode(secret.strip(), validate=True).decode().partition(":")[2]
        except ValueError:
            return ""
    return None


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach the address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _parts(scope: Scope) -> list[str]:
    """Split the address before unquoting it: `refs%2Fpr%2F1` is one part."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    try:
        parts = [unquote(part, errors="strict") for part in raw.decode("ascii").split("?")[0].split("/")]
    except UnicodeDecodeError:
        raise bad_request("The address is not UTF-8") from None
    return parts[1 : -1 if len(parts) > 1 and not parts[-1] else None]


def refuse(refusal: HubRefusal) -> Response:
    """Build the response of a refusal; clients read the reason from the headers."""
    headers = {"X-Error-Message": str(refusal), "X-Error-Code": refusal.error_code}
    headers["X-Request-Id"] = secrets.token_hex(8)
    if refusal.status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="Hub token as the password", charset="UTF-8"'
    return answer({"error": str(refusal)}, refusal.status, headers)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


class _Body:
    """The body of a request, received without ever holding more than a mebibyte of it."""

    def __init__(self, scope: Scope, receive: Receive, store: Store) -> None:
        declared = Headers(scope=scope).get("content-length", "0")
        self.declared = int(declared) if declared.isascii() and declared.isdigit() else 0
        self._receive = receive
        self._idle = store.limits.idle_seconds
        self._slowest = store.limits.slowest
        self._began, self._taken = time.monotonic(), 0
        self._done = False

    async def _next(self) -> bytes:
        try:
            async with asyncio.timeout(self._idle):
                message: Message = await self._receive()
        except TimeoutError:
            self._done = True
            raise HubRefusal(
                "server.too-slow",
                f"Nothing came for {self._idle:.0f} s in the middle of the body",
                status=408,
                error_code="Timeout",
            ) from None
        if message["type"] == "http.disconnect":
            self._done = True
            raise ClientDisconnect
        self._done = not message.get("more_body", False)
        data: bytes = message.get("body", b"")
        self._taken += len(data)
        late = time.monotonic() - self._began - self._idle
        if not self._done and late > 0 and self._taken < late * self._slowest:
            self._done = True
            raise HubRefusal(
                "server.too-slow",
                f"The body comes slower than {self._slowest} bytes a second",
                status=408,
                error_code="Timeout",
            )
        return data

    async def read(self, limit: int) -> bytes:
        """Read the whole body into memory."""
        data = bytearray()
        while not self._done:
            data += await self._next()
            if len(data) > limit:
                raise too_large("The body", limit)
        return bytes(data)

    async def pour(self, spool: Spool) -> None:
        """Write the whole body to disk; hashing and writing happen off the event loop."""
        data = bytearray()
        while not self._done:
            data += await self._next()
            if len(data) >= MIB:
                await anyio.to_thread.run_sync(spool.write, bytes(data))
                data.clear()
        await anyio.to_thread.run_sync(spool.write, bytes(data))
        await anyio.to_thread.run_sync(spool.finish)

    async def drain(self) -> None:
        """Read a refused body to its end when it is short and on its way: many clients only then read the answer."""
        if self.declared > _DRAINED:
            return
        self._idle, left = _DRAIN_SECONDS, _DRAINED
        try:
            while not self._done and left > 0:
                left -= len(await self._next())
        except (HubRefusal, ClientDisconnect):
            return
