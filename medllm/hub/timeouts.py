"""No request to the Hub waits for ever: a line that went dead without a word ends in a fault that is waited out."""

import httpx2
from huggingface_hub import get_session

CONNECT = 20.0
READ = 60.0
"""Seconds without one byte of an answer, for what only asks."""
WORK = 600.0
"""The same for what has the Hub do something: a commit of large files takes it a while."""


def bound_session() -> None:
    """Have the client's requests end some time; it sets no limit of its own, and forgets ours with each new session."""
    session = get_session()
    hooks = session.event_hooks
    if bound not in hooks["request"]:
        session.event_hooks = {**hooks, "request": [*hooks["request"], bound]}


def bound(request: httpx2.Request) -> None:
    """Set the limits that nobody set."""
    read = READ if request.method in ("GET", "HEAD") else WORK
    limits = {"connect": CONNECT, "read": read, "write": WORK, "pool": WORK}
    set_before = {name: value for name, value in request.extensions.get("timeout", {}).items() if value is not None}
    request.extensions["timeout"] = {**limits, **set_before}
