"""The request type of the hub, its typed JSON fields, and the routes that match it."""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlencode

from starlette.datastructures import Headers, QueryParams
from starlette.responses import JSONResponse, Response

from medllm.localhub.store.accounts import Caller
from medllm.localhub.store.blobs import Spool
from medllm.localhub.store.store import Store
from medllm.localhub.validation import KINDS, HubRefusal, bad_request

Body = Literal["none", "memory", "spool"]


@dataclass
class Call:
    """A request: its caller, its address and its body."""

    store: Store
    method: str
    base: str
    """The hub's address as this client sees it."""
    headers: Headers
    query: QueryParams
    caller: Caller
    path: str = "/"
    """The address as it was sent, still quoted."""
    args: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    spooled: Spool | None = None
    extras: object = None
    """The services beside the store; only the routes of jobs use them."""

    @property
    def kind(self) -> str:
        """The kind of repository that the address names."""
        return KINDS.get(self.args.get("kinds", "models"), "model")

    @property
    def full(self) -> tuple[str, str]:
        """Namespace and name from the address."""
        return self.args["namespace"], self.args["name"]

    @property
    def spool(self) -> Spool:
        """The body on the disk."""
        if self.spooled is None:
            raise bad_request("A body is missing")
        return self.spooled

    def page_number(self) -> int:
        """Which page, counted from 0, the query parameter `p` asks for."""
        return self.number("p", 0, 10**6) if self.query.get("p", "0").strip("0") else 0

    def next_page(self, cursor: int | str | None) -> dict[str, str]:
        """Return the header that leads to the next page of a listing, if there is one."""
        if cursor is None:
            return {}
        query = [(name, value) for name, value in self.query.multi_items() if name != "cursor"]
        return {"Link": f'<{self.base}{self.path}?{urlencode([*query, ("cursor", str(cursor))])}>; rel="next"'}

    def json(self) -> "Fields":
        """Parse the body as a JSON object; an empty body is an empty object."""
        try:
            value = json.loads(self.body or b"{}")
        except (ValueError, RecursionError):
            raise bad_request("The body is not JSON") from None
        return Fields(value)

    def flag(self, name: str) -> bool:
        """A query parameter that is on or off."""
        return self.query.get(name, "").lower() in ("true", "1", "yes")

    def number(self, name: str, default: int, most: int) -> int:
        """A query parameter that counts."""
        text = self.query.get(name)
        if text is None:
            return default
        if not re.fullmatch(r"[0-9]{1,12}", text):
            raise bad_request(f"{name} must be a whole number")
        return max(1, min(int(text), most))


class Fields:
    """The fields of a JSON object, read with their types."""

    def __init__(self, value: object) -> None:
        if not isinstance(value, dict):
            raise bad_request("The body must be a JSON object")
        self._value: dict[str, object] = value

    def __contains__(self, name: str) -> bool:
        return name in self._value

    @property
    def raw(self) -> dict[str, object]:
        """The object as it came."""
        return self._value

    def get(self, name: str) -> object:
        """Return the raw value, or None."""
        return self._value.get(name)

    def text(self, name: str, default: str | None = None, *, most: int = 100_000) -> str:
        """A text; without a default it must be there."""
        value = self._value.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, str) or len(value) > most:
            raise bad_request(f"{name!r} must be a text of at most {most} characters")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise bad_request(f"{name!r} must be valid Unicode") from None
        return value

    def optional(self, name: str) -> str | None:
        """A text, or None when it is absent or null."""
        return None if self._value.get(name) is None else self.text(name)

    def number(self, name: str, default: int | None = None, most: int = 2**53) -> int:
        """A whole number that is not negative."""
        value = self._value.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            raise bad_request(f"{name!r} must be a whole number from 0 to {most}")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """Read a field that is true or false."""
        value = self._value.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise bad_request(f"{name!r} must be true or false")
        return value

    def private(self) -> bool | None:
        """Return whether the body asks for a private thing; None when neither field is present.

        Clients of 2.x send `visibility`, those before them `private`. Only the words that mean "everybody" make a
        thing public, and a body whose two fields disagree makes a private one.
        """
        words = self.optional("visibility")
        if words not in (None, "public", "private", "protected"):
            raise bad_request("'visibility' must be public, private or protected")
        asked = [words != "public"] if words is not None else []
        if self.get("private") is not None:
            asked.append(self.flag("private"))
        return any(asked) if asked else None

    def items(self, name: str, most: int = 10_000) -> list["Fields"]:
        """A list of objects."""
        return [Fields(value) for value in self.values(name, most)]

    def texts(self, name: str, most: int = 10_000) -> list[str]:
        """A list of texts."""
        return [Fields({name: value}).text(name) for value in self.values(name, most)]

    def values(self, name: str, most: int = 10_000) -> list[object]:
        """A list of anything."""
        value = self._value.get(name)
        value = [] if value is None else value
        if not isinstance(value, list) or len(value) > most:
            raise bad_request(f"{name!r} must be a list of at most {most}")
        return value

    def pairs(self, name: str) -> dict[str, str]:
        """An object whose values are all texts."""
        value = self._value.get(name)
        inner = Fields({} if value is None else value)
        return {key: inner.text(key) for key in inner._value}


Handler = Callable[[Call], Response]


@dataclass(frozen=True)
class Route:
    """An address with placeholders, and the handler for it."""

    method: str
    segments: tuple[str, ...]
    handler: Handler
    body: Body
    limit: Callable[[Call], int] | None
    lane: str | None
    guard: Callable[[Call], object] | None
    """Refuses an unauthorised sender before any byte of the body is read."""

    def match(self, parts: list[str]) -> dict[str, str] | None:
        """Match a path and return the values of the placeholders, or None when the path does not fit."""
        args: dict[str, str] = {}
        for position, segment in enumerate(self.segments):
            if segment.endswith("...}"):
                return {**args, segment[1:-4]: "/".join(parts[position:])}
            if position >= len(parts):
                return None
            part = parts[position]
            if segment == "{kinds}" and part not in KINDS:
                return None
            if segment.startswith("{"):
                name, _, suffix = segment[1:].partition("}")
                if not part.endswith(suffix) or len(part) == len(suffix):
                    return None
                args[name] = part.removesuffix(suffix) if suffix else part
            elif part != segment:
                return None
        return args if len(parts) == len(self.segments) else None


class Routes:
    """The routes of one concern."""

    def __init__(self) -> None:
        self.routes: list[Route] = []

    def add(
        self,
        method: str,
        *patterns: str,
        body: Body = "none",
        limit: Callable[[Call], int] | None = None,
        lane: str | None = None,
        guard: Callable[[Call], object] | None = None,
    ) -> Callable[[Handler], Handler]:
        """Let the decorated function answer at these addresses.

        `lane` names the queue in which heavy work waits; `shards` has one queue for each user.
        """

        def register(handler: Handler) -> Handler:
            for pattern in patterns:
                segments = tuple(pattern.strip("/").split("/")) if pattern.strip("/") else ()
                self.routes.append(Route(method, segments, handler, body, limit, lane, guard))
            return handler

        return register


def find_route(routes: Iterable[Route], method: str, parts: list[str]) -> tuple[Route, dict[str, str]]:
    """Return the route of a request; HEAD goes where GET goes."""
    wanted, elsewhere = ("GET" if method == "HEAD" else method), False
    for route in routes:
        args = route.match(parts)
        if args is not None and route.method == wanted:
            return route, args
        elsewhere = elsewhere or args is not None
    if elsewhere:
        raise HubRefusal(
            "server.no-such-method", f"{method} is not possible here", status=405, error_code="MethodNotAllowed"
        )
    raise HubRefusal(
        "server.no-such-address", "This hub has nothing at this address", status=404, error_code="NotFound"
    )


_BELOW = """auth-check branch commit commits compare discussions lfs-files like likers paths-info preupload raw refs
resolve revision runtime settings super-squash tag tree treesize user-access-request xet-read-token xet-write-token"""
_OF_A_REPO = frozenset(_BELOW.split())


def lacks_namespace(parts: list[str]) -> bool:
    """Whether an address is one of a repository that it names without a namespace, as in `gpt2/resolve/main/a.txt`.

    >>> lacks_namespace(["api", "models", "gpt2"]), lacks_namespace(["api", "models", "alice", "gpt2"])
    (True, False)
    """
    if parts[:1] == ["api"]:
        below = parts[2:] if len(parts) > 1 and parts[1] in KINDS else []
    else:
        below = parts[1:] if parts[:1] in (["datasets"], ["spaces"]) else parts
        if len(below) == 1:
            return False
    return bool(below) and (len(below) == 1 or below[1] in _OF_A_REPO)


def answer(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer; what a header cannot carry becomes a question mark in it."""
    safe = {name: printable(text) for name, text in (headers or {}).items()}
    return JSONResponse(value, status, headers=safe)


def printable(text: str) -> str:
    r"""Convert a text to what a header may carry: printable ASCII on one line.

    >>> printable("no\x1b[31m\r\nSet-Cookie: a=b")
    'no?[31m Set-Cookie: a=b'
    """
    line = " ".join(text.split())
    return "".join(sign if " " <= sign <= "~" else "?" for sign in line)
