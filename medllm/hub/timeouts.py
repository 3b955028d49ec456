"""Timeouts for all requests to the Hub: a dead connection ends in an error, and the call is retried."""

import httpx2
from huggingface_hub import get_session

CONNECT = 20.0
READ = 60.0
"""Seconds without one byte of an answer, for requests that only read."""
WORK = 600.0
"""The same for requests that make the Hub work: a commit of large files takes it a while."""


def bound_session() -> None:
    """Add timeouts to the client's session; the client sets none, and loses ours with each new session."""
    session = get_session()
    hooks = session.event_hooks
    if bound not in hooks["request"]:
        session.event_hooks = {**hooks, "request": [*hooks["request"], bound]}


def bound(request: httpx2.Request) -> None:
    """Set each timeout that the request does not set itself."""
    read = READ if request.method in ("GET", "HEAD") else WORK
    limits = {"connect": CONNECT, "read": read, "write": WORK, "pool": WORK}
    set_before = {name: value for name, value in request.extensions.get("timeout", {}).items() if value is not None}
    request.extensions["timeout"] = {**limits, **set_before}
