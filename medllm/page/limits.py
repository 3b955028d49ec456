"""Bounds on results without a reader, sessions without a holder and requests without an end: the oldest are dropped."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

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
        for session in sorted(unread, key=lambda one: self.since[one], reverse=True):
            count += waiting[session].qsize()
            size += sum(characters(message) for message in list(waiting[session]._queue))
            if count > MOST_WAITING or size > LARGEST_WAITING or now - self.since[session] > WAITS:
                await self._drop(session)
        for session in [one for one in queue.pending_event_ids_session if one not in waiting]:
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
        return sum(_length(one) for one in value.values()) + 64
    if isinstance(value, list | tuple):
        return sum(map(_length, value)) + 64
    return 16
