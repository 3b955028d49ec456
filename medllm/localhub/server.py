"""Runs a hub: in a thread of this process, or as the only task of the process."""

import logging
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

import uvicorn

from medllm.errors import HubError
from medllm.localhub.job_runner import JobRunner
from medllm.localhub.store.store import Store
from medllm.localhub.validation import ServerLimits
from medllm.localhub.web import buckets, collections, commit, gating, jobs, large_files, pages, repos, spaces, tree
from medllm.localhub.web.app import App, connection_class, is_loopback

ROUTES = [
    route
    for part in (
        repos,
        commit,
        jobs,
        buckets,
        collections,
        gating,
        spaces,
        large_files,
        tree,
        spaces,
        pages,
    )
    for route in part.routes.routes
]
"""Every route in the order in which they are tried; addresses of the API come before those of files."""


DEFAULT_PORT = 8717
"""Where `medllm hub serve` listens, and `medllm hub env` points to."""


class _Server(uvicorn.Server):
    """A uvicorn server that leaves signals to its caller: uvicorn re-raises them, which skips the caller's clean-up."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class LocalHub:
    """A hub that runs in a thread for as long as the `with` block lasts."""

    def __init__(
        self,
        folder: Path | str,
        port: int = 0,
        *,
        host: str = "127.0.0.1",
        user: str | None = None,
        allow_jobs: bool = False,
        limits: ServerLimits | None = None,
    ) -> None:
        self.store = Store(Path(folder), limits)
        self.user = user or self.store.owner
        self._socket = _bind(host, port)
        address = self._socket.getsockname()
        self.url = f"http://{f'[{address[0]}]' if ':' in address[0] else address[0]}:{address[1]}"
        self._jobs = JobRunner(self.store, self.url) if allow_jobs else None
        app = App(self.store, ROUTES, public=not is_loopback(host), extras=self._jobs)
        self._server = _Server(settings(app, self.store.limits))
        self._thread = threading.Thread(target=self._serve, name="medllm-hub", daemon=True)
        self._token: str | None = None

    @property
    def token(self) -> str:
        """A token of `user` with the write role, good until the hub stops."""
        if self._token is None:
            self._token = self.store.session_token(self.user)
        return self._token

    def _serve(self) -> None:
        self._server.run(sockets=[self._socket])

    def run(self) -> None:
        """Serve in this thread, which must be the main one, until the process is asked to stop."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        try:
            self._serve()
        finally:
            self.close()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._server.force_exit = self._server.should_exit  # the second signal does not wait
        self._server.should_exit = True
        if self._jobs is not None:
            self._jobs.stop()

    def close(self) -> None:
        """End the jobs, give back the port and the store."""
        if self._jobs is not None:
            self._jobs.close()
        self._socket.close()
        self.store.close()

    def __enter__(self) -> Self:
        self._thread.start()
        while not self._server.started:
            self._thread.join(0.01)
            if not self._thread.is_alive():
                self.close()
                raise HubError(
                    "hub.not-started",
                    f"The embedded hub on {self.store.folder} stopped before it answered; its log gives the reason.",
                )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        if self._jobs is not None:
            self._jobs.close()  # streams of logs end with their jobs, and the server waits for them
        self._thread.join(30)
        self.close()


def serve(
    folder: Path | str,
    port: int = 0,
    *,
    host: str = "127.0.0.1",
    user: str | None = None,
    allow_jobs: bool = False,
    limits: ServerLimits | None = None,
) -> LocalHub:
    """A hub on this folder, as a context manager that gives `.url`, `.token` and `.user`; port 0 takes a free one."""
    return LocalHub(folder, port, host=host, user=user, allow_jobs=allow_jobs, limits=limits)


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as fault:
        listener.close()
        raise HubError(
            "hub.port-not-free", f"{host}:{port}: cannot be served: {fault.strerror}. Name another --port or --host."
        ) from fault
    listener.listen(512)
    return listener


def settings(app: App, limits: ServerLimits) -> uvicorn.Config:
    """How uvicorn runs the hub: no access log, because addresses carry signatures."""
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    return uvicorn.Config(
        app,
        http=connection_class(limits),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=10,
        server_header=False,
    )
