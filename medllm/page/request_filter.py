"""Request filter before Gradio: passes only what the page itself uses, for its own names, within bounds."""

import asyncio
import inspect
import json
import re
from collections.abc import Callable
from typing import Any

import gradio as gr
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medllm.page.middleware import Hosts, PendingRequests

DEEPEST = 16
LONGEST = 4_000
"""Characters of a value whose control sets no length."""

Json = Any


def json_fault(body: Json) -> str | None:
    """Return why a body is not a valid event of any kind; None if it is valid."""
    if not isinstance(body, dict):
        return "the body is no JSON object."
    if _depth(body) > DEEPEST:
        return f"the body is nested more than {DEEPEST} deep."
    if _odd_number(body):
        return "the body holds NaN or an infinite number."
    if _broken_text(body):
        return "the body holds half a character (a lone surrogate)."
    session = body.get("session_hash")
    if session is not None and not _is_name(session):
        return "`session_hash` is at most 64 letters, digits, _ and -."
    return None


def event_fault(demo: gr.Blocks, name: str | None, body: dict[str, Json]) -> str | None:
    """Return why the page has no such event, or why values do not fit its controls; None if all is valid."""
    fn = _function(demo, name, body.get("fn_index"))
    if fn is None:
        public = sorted({function.api_name for function in demo.fns.values() if function.api_visibility == "public"})
        return f"there is no function of that name or number. Functions: {', '.join(public) or 'none'}."
    data, inputs = body.get("data"), fn.inputs
    if not isinstance(data, list):
        return "`data` is a list of values."
    labels = list(inspect.signature(fn.fn).parameters) if fn.api_visibility == "public" else []
    if len(data) != len(inputs):
        wanted = f": {', '.join(labels)}" if labels else ""
        return f"`{fn.api_name}` takes {len(inputs)} values{wanted}; {len(data)} came."
    session = body.get("session_hash")
    for place, (value, control) in enumerate(zip(data, inputs, strict=True)):
        if fault := _value_fault(demo, session, control, value):
            return f"value {place + 1}{f' ({labels[place]})' if labels else ''}: {fault}"
    return _rest_fault(fn, body)


def _function(demo: gr.Blocks, name: str | None, index: Json) -> Any:  # noqa: ANN401  (gradio's function)
    if index is not None:
        function = demo.fns.get(index) if isinstance(index, int) and not isinstance(index, bool) else None
        return function if function is not None and function.fn is not None else None
    public = (fn for fn in demo.fns.values() if fn.api_visibility == "public" and fn.api_name == name)
    return next(public, None)


def _value_fault(demo: gr.Blocks, session: str | None, control: Any, value: Json) -> str | None:  # noqa: ANN401
    """Return why a value cannot come from a control; public functions check their own values."""
    if value is None:
        return None
    longest = getattr(control, "max_length", None) or LONGEST
    if isinstance(value, str) and len(value) > longest:
        return f"at most {longest:,} letters; {len(value):,} came."
    if isinstance(control, gr.Checkbox):
        return None if isinstance(value, bool) else "true or false is wanted."
    if isinstance(control, gr.Textbox | gr.Dropdown | gr.Radio | gr.Button) and not isinstance(value, str):
        return "text is wanted."
    if isinstance(control, gr.Dropdown | gr.Radio):
        state = demo.state_holder.session_data.get(session or "")
        now = state.blocks_config.blocks.get(control._id, control) if state else control
        offered = [choice[1] if isinstance(choice, tuple | list) else choice for choice in now.choices]
        return None if value in offered else f"`{value[:80]}` is not among what is offered."
    return None


def _rest_fault(fn: Any, body: dict[str, Json]) -> str | None:  # noqa: ANN401
    trigger, event = body.get("trigger_id"), body.get("event_data")
    if trigger is not None and not isinstance(trigger, int):
        return "`trigger_id` is a number."
    wants = any(
        isinstance(parameter.annotation, type) and issubclass(parameter.annotation, gr.EventData)
        for parameter in inspect.signature(fn.fn).parameters.values()
    )
    if not wants:
        return None
    if not isinstance(event, dict) or not all(isinstance(part, str | int | None) for part in event.values()):
        return "`event_data` is an object of texts."
    if any(isinstance(part, str) and len(part) > LONGEST for part in event.values()):
        return f"`event_data` holds at most {LONGEST:,} letters a text."
    return None


def _is_name(value: Json) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[\w-]{1,64}", value, re.ASCII) is not None


def _depth(value: Json) -> int:
    deepest, level = 0, [value]
    while level and deepest <= DEEPEST:
        deepest += 1
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer if isinstance(outer, list) else ())
        ]
    return deepest


def _broken_text(value: Json) -> bool:
    if isinstance(value, str):
        return any("\ud800" <= letter <= "\udfff" for letter in value)
    if isinstance(value, dict):
        return any(map(_broken_text, value)) or any(map(_broken_text, value.values()))
    return isinstance(value, list) and any(map(_broken_text, value))


def _odd_number(value: Json) -> bool:
    if isinstance(value, float):
        return value != value or value in (float("inf"), float("-inf"))
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(map(_odd_number, inner))


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

SIGN_IN = re.compile(r"/login/(huggingface|callback)|/logout")
"""Addresses of Gradio's that sign a rater in and out; open only where raters sign in."""

LARGEST_BODY = 256 * 1024
"""Bytes of an event; a reader's longest question with all its choices, each letter spelt \\uXXXX, is smaller."""

SLOWEST_BODY = 30.0
"""Seconds within which a body must arrive."""

MOST_OPEN = 1024
"""Concurrent requests; each reader has two, a heartbeat and a stream of results."""


class RequestFilter:
    """ASGI middleware that refuses every request the page does not need before Gradio sees it."""

    def __init__(self, app: ASGIApp, hosts: Hosts, demo: Callable[[], Any], *, sign_in: bool = False) -> None:
        self.app = app
        self.hosts = hosts
        self.sign_in = sign_in
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
        if self.sign_in and method == "GET" and SIGN_IN.fullmatch(path):
            return None
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
        match = SENT.fullmatch(path)
        name = match and (match["run"] or match["call"])
        if match and match["v2"]:
            return None if match["v2"] in named(self.demo()) else f"there is no function `{match['v2']}`."
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
        match = re.search(rb"(?:^|&)session_hash=([\w-]{1,64})(?:&|$)", scope["query_string"])
        return match[1].decode() if match else None
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
