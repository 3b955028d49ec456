"""Around Gradio's page: its names, its language and first screen, and bounds on what waits without a reader."""

import asyncio
import functools
import gzip
import ipaddress
import os
import re
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medllm.page.html import both, word

LOOPBACK = ("localhost", "ip6-localhost")
EVERYWHERE = ("0.0.0.0", "::", "")
"""Listening addresses that mean every network card."""


@dataclass(frozen=True)
class Hosts:
    """The `Host` headers that the page answers.

    The page always answers to loopback names. On every network card, it also answers to the machine's own name and to
    bare addresses: a browser never takes a bare address for another site's name, so rebinding is impossible.
    """

    names: frozenset[str]
    """Whole names in lower case, or `.example.org` for everything under it."""
    addresses: bool = False
    """Whether the page answers to any bare address, or only to loopback ones."""
    foreign_pages: bool = False
    """Whether scripts of other sites may send events: yes on a public Space, never on your own machine."""

    def answers(self, header: str) -> bool:
        """Return whether a `Host` header names this page.

        >>> Hosts(frozenset({".hf.space"})).answers("me-page.hf.space:443"), Hosts(frozenset()).answers("evil.example")
        (True, False)
        """
        name = host_name(header)
        if not name:
            return False
        try:
            address = ipaddress.ip_address(name)
            return self.addresses or address.is_loopback
        except ValueError:
            pass
        name = name.rstrip(".")
        under = any(known.startswith(".") and name.endswith(known) for known in self.names)
        return name in LOOPBACK or name.endswith(".localhost") or name in self.names or under

    def may_send(self, origin: str) -> bool:
        """Return whether a page with this `Origin` may send events here."""
        return self.foreign_pages or self.answers(origin.partition("://")[2])


def host_name(header: str) -> str:
    """Return the name in a `Host` header without its port, in lower case; empty if it is not a name.

    >>> host_name("LocalHost:7860"), host_name("[::1]:7860"), host_name("a b"), host_name("me@localhost")
    ('localhost', '::1', '', '')
    """
    name, colon, port = header.strip().rpartition(":") if not header.strip().endswith("]") else (header.strip(), "", "")
    if not colon:
        name = name or port
    elif not port.isdecimal():
        return ""
    if name.startswith("[") and name.endswith("]"):
        return name[1:-1].lower()
    return name.lower() if name and all(char.isalnum() or char in "-._" for char in name) else ""


def hosts_of(listening: str, more: tuple[str, ...] = (), environment: Mapping[str, str] = os.environ) -> Hosts:
    """Return the names for a page that listens on an address; MEDLLM_HOSTS adds names, separated by commas."""
    on_space = "SPACE_ID" in environment
    everywhere = listening in EVERYWHERE
    names = {*more, *environment.get("MEDLLM_HOSTS", "").split(","), environment.get("SPACE_HOST", "")}
    names |= {listening} if not everywhere else {socket.gethostname()}
    names |= {".hf.space", "huggingface.co"} if on_space else set()
    cleaned = frozenset(name.strip().lower().removeprefix("*") for name in names if name.strip())
    return Hosts(cleaned, addresses=everywhere or _is_address(listening), foreign_pages=on_space)


def _is_address(name: str) -> bool:
    try:
        return not ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


# Gradio compiles its templates in the browser and needs eval; other hosts get nothing, so a model's output cannot
# call any site.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'"
)


class Frame:
    """ASGI middleware that rewrites the one HTML document that Gradio serves and packs answers to quick events.

    All else passes through unchanged: streams are never held.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request; the document and an answer are held back until they are complete."""
        path = scope["path"] if scope["type"] == "http" else None
        document = path in ("/", "")
        if path is None or not (document or path.startswith(QUICK)):
            return await self.app(scope, receive, send)
        start: Message = {}
        body = b""

        async def hold(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                start = message
                return
            body += message.get("body", b"")
            if message.get("more_body"):
                return
            if document:
                shown, coding = packed(body, _coding(scope)) if b"<head>" in body else (body, b"")
            else:
                shown, coding = packed_answer(body, _coding(scope))
            headers = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
            if coding:
                headers += [(b"content-encoding", coding), (b"vary", b"accept-encoding")]
            headers += [(b"content-length", str(len(shown)).encode())]
            headers += [(b"content-security-policy", POLICY.encode())] if document else []
            await send({**start, "headers": headers})
            await send({"type": "http.response.body", "body": shown})

        await self.app(scope, receive, hold)


QUICK = "/gradio_api/run/"
"""Addresses of Gradio's events that are answered at once, as a whole."""

SMALL = 1_000
"""Bytes of an answer that is not worth packing."""


def packed_answer(body: bytes, coding: bytes) -> tuple[bytes, bytes]:
    """Return an answer as it travels: a question with the replies of twelve models is a seventh of its size."""
    if not coding or len(body) < SMALL:
        return body, b""
    if coding == b"br":
        import brotli

        return brotli.compress(body, quality=4), coding
    return gzip.compress(body, 4), coding


def _coding(scope: Scope) -> bytes:
    """Return the strongest coding that a browser takes: browsers take Brotli from https and from this machine."""
    taken = b",".join(value for name, value in scope["headers"] if name == b"accept-encoding")
    names = {part.partition(b";")[0].strip() for part in taken.split(b",")}
    return next((coding for coding in (b"br", b"gzip") if coding in names), b"")


@functools.lru_cache(maxsize=8)
def packed(document: bytes, coding: bytes) -> tuple[bytes, bytes]:
    """Return Gradio's document as the page's own, packed to an eighth; every reader gets the same, so it is kept."""
    framed = frame(document.decode()).encode()
    if coding == b"br":
        import brotli

        return brotli.compress(framed, quality=9), coding
    return (gzip.compress(framed, 9), coding) if coding else (framed, b"")


def frame(document: str) -> str:
    """Add medllm's language, title, script and first screen to Gradio's document."""
    folder = resources.files("medllm.page")
    script = "".join(folder.joinpath(name).read_text(encoding="utf-8") for name in ("page.js", "review.js"))
    title, lead = word("title", "ja"), word("lead", "ja")
    document = re.sub(r'(<html[^>]*?\s)lang="en"', r'\1lang="ja"', document, count=1)
    document = re.sub(r"<title>.*?</title>", f"<title>{title}</title>", document, count=1, flags=re.S)
    document = re.sub(r'(<meta\s+property="og:title"\s+content=")[^"]*', rf"\g<1>{title}", document, count=1)
    document = re.sub(r'(<meta\s+property="og:description"\s+content=")[^"]*', rf"\g<1>{lead}", document, count=1)
    document = document.replace("<head>", f"<head><script>{script}</script>", 1)
    return re.sub(r"(<body[^>]*>)", lambda match: match[1] + first_screen(), document, count=1)


def first_screen() -> str:
    """Return the screen shown until Gradio has mounted; it covers the page, so nothing jumps while parts arrive.

    Its style also holds what concerns the document: Gradio confines the rules of style.css to its own container.
    """
    return (
        "<style>html[lang=en] .ja,html:not([lang=en]) .en{display:none}html{scroll-padding-bottom:90px}"
        "@media print{footer{display:none!important}.gradio-container{max-width:none!important}}"
        "#medllm-first{position:fixed;inset:0;z-index:9999;background:#fff;color:#1f2937;padding:32px 24px;"
        "font:16px/1.7 system-ui,'Hiragino Sans','Yu Gothic UI',Meiryo,'Noto Sans CJK JP',sans-serif}"
        "@media(prefers-color-scheme:dark){#medllm-first{background:#0b0f19;color:#f3f4f6}}</style>"
        f'<div id="medllm-first" role="status"><strong>{both("title")}</strong><br>{both("loading")}</div>'
    )


WAITS = 60.0
"""Seconds for which a result waits for a reader."""

EVERY = 1.0
"""Seconds between two sweeps."""

MOST_WAITING = 2_000
"""Messages that wait without a reader; a result has about four."""

LARGEST_WAITING = 32_000_000
"""Characters of their results."""

MOST_FOR_ONE = 1_000
"""Messages for one reader with an open connection who does not read."""

MOST_UNHELD = 64
"""Sessions without a heartbeat whose choices are kept; each takes about 0.15 MB. Programs need no such session."""

OFTEN = 32
"""Events after which a sweep is due at any time."""


HEADERS = 20.0
"""Seconds within which a connection must send the headers of a request."""


class PendingRequests:
    """Watch over Gradio's queue, which itself drops nothing before its 2,000th session."""

    def __init__(self, demo: Callable[[], Any], clock: Callable[[], float] = time.monotonic) -> None:
        self.demo = demo
        self.clock = clock
        self.readers: Counter[str] = Counter()
        self.since: dict[str, float] = {}
        self.events = 0
        self.silent: dict[int, float] = {}

    def knows(self, session: str, path: str) -> bool:
        """Return whether there is something to read; a heartbeat may come first."""
        held = self._session_of(session)
        return path.startswith("/gradio_api/heartbeat/") or held in self.demo()._queue.pending_messages_per_session

    @contextmanager
    def reading(self, session: str | None) -> Iterator[None]:
        """Hold a session (or the session of an event) while a reader reads from it."""
        held = None if session is None else self._session_of(session)
        if held is not None:
            self.readers[held] += 1
        try:
            yield
        finally:
            if held is not None:
                self.readers[held] -= 1
                if not self.readers[held]:
                    del self.readers[held]

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Sweep every second while the page is served."""

        async def look() -> None:
            while True:
                await asyncio.sleep(EVERY)
                self.end_half_open()
                await self.sweep()

        task = asyncio.create_task(look())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def sweep_often(self) -> None:
        """Sweep if many events have come since the last sweep."""
        self.events += 1
        if self.events >= OFTEN:
            await self.sweep()

    async def sweep(self) -> None:
        """Drop results that waited too long or exceed the bounds, the oldest first."""
        self.events = 0
        now, queue = self.clock(), self.demo()._queue
        waiting = queue.pending_messages_per_session
        self.since = {session: self.since.get(session, now) for session in list(waiting.keys())}
        unread = [session for session in self.since if session not in self.readers]
        for session in self.readers.keys() & self.since.keys():
            self.since[session] = now
            if waiting[session].qsize() > MOST_FOR_ONE:
                await self._drop(session)
        count = size = 0
        for session in sorted(unread, key=self.since.__getitem__, reverse=True):
            count += waiting[session].qsize()
            size += sum(characters(message) for message in list(waiting[session]._queue))
            if count > MOST_WAITING or size > LARGEST_WAITING or now - self.since[session] > WAITS:
                await self._drop(session)
        for session in [event for event in queue.pending_event_ids_session if event not in waiting]:
            queue.pending_event_ids_session.pop(session, None)
        self._forget_states()

    def end_half_open(self) -> None:
        """Close connections that have no running request and have sent no complete one for `HEADERS` seconds.

        Gradio starts its own server and takes no class of connections, as the embedded hub's server does.
        """
        state = getattr(getattr(self.demo(), "server", None), "server_state", None)
        now, waiting = self.clock(), {}
        for line in list(getattr(state, "connections", ())):
            cycle = getattr(line, "cycle", None)
            if cycle is None or cycle.response_complete:
                waiting[id(line)] = self.silent.get(id(line), now)
                if now - waiting[id(line)] > HEADERS and line.transport is not None:
                    line.transport.abort()
        self.silent = waiting

    def _forget_states(self) -> None:
        holder = self.demo().state_holder
        unheld = [session for session in list(holder.session_data) if session not in self.readers]
        for session in unheld[:-MOST_UNHELD]:
            holder.session_data.pop(session, None)
            holder.time_last_used.pop(session, None)

    async def _drop(self, session: str) -> None:
        """End a session's events, then drop the session; a running event must not write to a dropped session."""
        queue = self.demo()._queue
        for event_id in list(queue.pending_event_ids_session.get(session, ())):
            event = queue.event_ids_to_events.get(event_id)
            if event is not None:
                event.alive = False
        await queue.clean_events(session_hash=session)
        queue.pending_event_ids_session.pop(session, None)
        queue.pending_messages_per_session.pop(session, None)
        self.since.pop(session, None)

    def _session_of(self, name: str) -> str:
        queue = self.demo()._queue
        event = queue.event_ids_to_events.get(name)
        if event is not None:
            return str(event.session_hash)
        sessions = queue.pending_event_ids_session.items()
        return next((session for session, events in sessions if name in events), name)


def characters(message: object) -> int:
    """Estimate the size of a message: the characters of all texts in its result."""
    return _length(getattr(message, "output", None))


def _length(value: object) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(_length(inner) for inner in value.values()) + 64
    if isinstance(value, list | tuple):
        return sum(map(_length, value)) + 64
    return 16
