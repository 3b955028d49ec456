"""A proxy before the embedded Hub that brings bad weather: refusals, cut lines, a wrong clock."""

import http.client
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

HOP = {"connection", "transfer-encoding", "keep-alive", "content-length"}


@dataclass
class Storm:
    """Some requests that fare ill: the first `times` whose method and path match."""

    path: str
    times: int
    status: int | None = None
    """What is answered instead of the Hub; None cuts the line."""
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes = b'{"error": "bad weather"}'
    after: bool = False
    """Whether the Hub has heard the request before the line is cut."""
    met: int = 0


class Proxy(ThreadingHTTPServer):
    """Passes requests on to the Hub, as the weather allows."""

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.target = urlsplit(target)
        self.storms: list[Storm] = []
        self.headers: dict[str, str] = {}
        self.heard: list[str] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """Where clients reach it."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def storm_over(self, line: str) -> Storm | None:
        """The storm this request meets, if any is left for it."""
        with self.lock:
            self.heard.append(line)
            for storm in self.storms:
                if storm.met < storm.times and re.search(storm.path, line):
                    storm.met += 1
                    return storm
        return None

    def handle_error(self, request: object, client_address: object) -> None:
        """A cut line is what was wanted."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Proxy

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        whole = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return whole

    def _pass_on(self) -> None:
        body = self._body()
        storm = self.server.storm_over(f"{self.command} {self.path}")
        if storm and storm.status is None and not storm.after:
            self.close_connection = True
            return
        if storm and storm.status is not None:
            self._answer(storm.status, {**storm.headers, "Content-Type": "application/json"}, storm.content)
            return
        target = self.server.target
        hub = http.client.HTTPConnection(target.hostname, target.port, timeout=60)
        # The Host stays ours, so that addresses the Hub hands out lead through the weather too.
        hub.request(self.command, self.path, body, {k: v for k, v in self.headers.items() if k.lower() not in HOP})
        reply = hub.getresponse()
        content = reply.read()
        hub.close()
        if storm:
            self.close_connection = True
            return
        headers = {k: v for k, v in reply.getheaders() if k.lower() not in HOP - {"content-length"}}
        self._answer(reply.status, {**headers, **self.server.headers}, content)

    def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response_only(status)
        if self.command != "HEAD":
            headers = {k: v for k, v in headers.items() if k.lower() != "content-length"}
            headers["Content-Length"] = str(len(content))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = _pass_on


def weather(target: str) -> tuple[Proxy, Callable[[], None]]:
    """A running proxy and the way to end it."""
    proxy = Proxy(target)
    thread = threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True)
    thread.start()

    def end() -> None:
        proxy.shutdown()
        thread.join()
        proxy.server_close()

    return proxy, end
