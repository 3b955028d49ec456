"""The names under which the page answers: a foreign site that points its own name at this machine gets nothing."""

import ipaddress
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

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
    return name.lower() if name and all(one.isalnum() or one in "-._" for one in name) else ""


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
