"""A connection to the hub that waits only so long, and only for so much, before a request has begun."""

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from medllm.localhub.limits import ServerLimits


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
                silent = (one for one in self.connections if one is not self and one._is_idle())
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
