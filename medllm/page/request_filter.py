"""Request filter before Gradio: passes only the addresses that the page uses, only for its own names, within bounds."""

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any

from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medllm.page.allowed_hosts import Hosts
from medllm.page.arguments import event_fault, json_fault
from medllm.page.limits import PendingRequests

READ = re.compile(
    r"/|/config/?|/theme\.css|/favicon\.ico|/robots\.txt|/manifest\.json|/(assets|static|svelte)/[\w./-]+"
    r"|/medllm/[\w.]+|/gradio_api/(info/?|app_id/?|startup-events|theme\.css|queue/data|heartbeat/[\w-]{1,64})"
    r"|/gradio_api/call/(v2/)?\w{1,64}/\w{1,64}"
)
"""Addresses that may be read: not the machine's files, a proxy, uploads, saved links or the editors of Gradio."""

SENT = re.compile(
    r"/medllm/vote|/gradio_api/(queue/join|cancel|reset/?|(run|api)/(?P<run>\w{1,64})/?|call/(?P<call>\w{1,64})/?)"
    r"|/gradio_api/call/v2/(?P<v2>\w{1,64})/?"
)
"""Addresses that accept data."""

LARGEST_BODY = 256 * 1024
"""Bytes of an event; a reader's longest question with all its choices, each letter spelt \\uXXXX, is smaller."""

SLOWEST_BODY = 30.0
"""Seconds within which a body must arrive."""

MOST_OPEN = 1024
"""Concurrent requests; each reader has two, a heartbeat and a stream of results."""


class RequestFilter:
    """ASGI middleware that refuses every request the page does not need before Gradio sees it."""

    def __init__(self, app: ASGIApp, hosts: Hosts, demo: Callable[[], Any]) -> None:
        self.app = app
        self.hosts = hosts
        self.demo = demo
        self.pending = PendingRequests(demo)
        self.open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it here."""
        if scope["type"] == "lifespan":
            async with self.pending.watched():
                await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._enter(scope, receive, send)
        else:  # the page has no websockets
            await receive()
            await send({"type": "websocket.close", "code": 1008})

    async def _enter(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope)
        if refusal is not None:
            return await refusal(scope, receive, send)
        self.open += 1
        try:
            if scope["method"] == "POST":
                return await self._take(scope, receive, send)
            session = session_read(scope)
            if session is not None and not self.pending.knows(session, scope["path"]):
                return await _gone(scope["path"])(scope, receive, send)
            with self.pending.reading(session):
                await self.app(scope, receive, send)
        finally:
            self.open -= 1

    def _refusal(self, scope: Scope) -> Response | None:
        named = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        if len(named) != 1 or not self.hosts.answers(named[0]):
            text = "this page does not answer to that name. Add it to MEDLLM_HOSTS if it is yours (docs/space.md)."
            return PlainTextResponse(text, 403)
        path, method = scope["path"], scope["method"]
        if method == "POST":
            origins = [value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"]
            if not all(self.hosts.may_send(origin) for origin in origins):
                return PlainTextResponse("another site may send nothing to this page.", 403)
        elif method not in ("GET", "HEAD"):
            return PlainTextResponse("this page answers GET, HEAD and POST.", 405, {"Allow": "GET, HEAD, POST"})
        if not (SENT if method == "POST" else READ).fullmatch(path):
            there = READ.fullmatch(path) or SENT.fullmatch(path)
            return PlainTextResponse("this page has no such address.", 405 if there else 404)
        if self.open >= MOST_OPEN:
            return PlainTextResponse("too many readers at once: try again.", 503, {"Retry-After": "5"})
        return None

    async def _take(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read a body within its bounds, check it, and pass it on."""
        body = await whole_body(scope, receive)
        if isinstance(body, Response):
            return await body(scope, receive, send)
        fault = self._fault(scope["path"], body)
        if fault:
            return await JSONResponse({"detail": fault}, 400)(scope, receive, send)
        await self.pending.sweep_often()
        given = False

        async def replay() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, replay, send)

    def _fault(self, path: str, body: bytes) -> str | None:
        try:
            message = json.loads(body)
        except (ValueError, RecursionError):
            return "the body is no JSON."
        if fault := json_fault(message):
            return fault
        if path == "/medllm/vote":  # the review routes check the contents of a vote
            return None
        found = SENT.fullmatch(path)
        name = found and (found["run"] or found["call"])
        if found and found["v2"]:
            return None if found["v2"] in named(self.demo()) else f"there is no function `{found['v2']}`."
        if path.startswith(("/gradio_api/cancel", "/gradio_api/reset")):
            return None
        return event_fault(self.demo(), name or None, message)


def _gone(path: str) -> Response:
    """Return the answer to a reader of a stream whose results are not (or no longer) here, in Gradio's two forms."""
    text = "there is no such result here: it was fetched already, or waited too long."
    message = {"msg": "unexpected_error", "message": text, "session_not_found": True, "success": False}
    event = f"event: error\ndata: {json.dumps(text)}\n\n" if "/call/" in path else f"data: {json.dumps(message)}\n\n"
    return PlainTextResponse(event, media_type="text/event-stream")


def named(demo: Any) -> set[str]:  # noqa: ANN401  (gradio's blocks)
    """Return the names of the public functions."""
    return {str(fn.api_name) for fn in demo.fns.values() if fn.api_visibility == "public"}


def session_read(scope: Scope) -> str | None:
    """Return the session (or event) whose results or whose heartbeat a request waits for."""
    path = scope["path"]
    if path == "/gradio_api/queue/data":
        found = re.search(rb"(?:^|&)session_hash=([\w-]{1,64})(?:&|$)", scope["query_string"])
        return found[1].decode() if found else None
    if path.startswith(("/gradio_api/heartbeat/", "/gradio_api/call/")):
        last: str = path.rsplit("/", 1)[1]
        return last
    return None


async def whole_body(scope: Scope, receive: Receive) -> bytes | Response:
    """Return the body of a request, or the refusal of one that is too large or too slow."""
    large = PlainTextResponse(f"at most {LARGEST_BODY:,} bytes are taken.", 413, {"Connection": "close"})
    announced_length = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    if announced_length.isdigit() and int(announced_length[:20]) > LARGEST_BODY:
        return large
    body: bytes = b""
    try:
        async with asyncio.timeout(SLOWEST_BODY):
            while True:
                message = await receive()
                body += message.get("body", b"")
                if len(body) > LARGEST_BODY:
                    return large
                if message["type"] == "http.disconnect" or not message.get("more_body"):
                    return body
    except TimeoutError:
        return PlainTextResponse("the body did not arrive in time.", 408, {"Connection": "close"})
