"""Every route against input no client would send: always an answer, never a fault of the server, nothing outside."""

import base64
import json
import os
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medllm.localhub import LocalHub, serve
from medllm.localhub.server import ROUTES
from medllm.localhub.store import removal
from medllm.localhub.web.request import Route
from tests.localhub.wire import Reply, Wire, hash_text, large, make_shard, make_xorb, small

MORE = int(os.environ.get("MEDLLM_FUZZ", "1"))
"""How many times the usual number of examples to try."""
TRICKS = [
    "..",
    ".",
    "",
    "/",
    "\\",
    "%00",
    "\0",
    "%2e%2e",
    "../../etc/passwd",
    "C:",
    "~",
    "・",
    "\ud7ff",
    "a" * 3000,
    "'; --",
    "{}",
]
WORDS = [
    "alice",
    "model",
    "main",
    "refs/heads/main",
    "refs/pr/1",
    "v1",
    "a.txt",
    "d",
    "d/b.bin",
    "models",
    "default",
    "whole",
    "1",
]
NAMES = """name organization type private visibility sdk fromRepo toRepo gated startingPoint tag message content
repoType files path sample size operation transfers objects oid parts partNumber title description
pullRequest comment status user userId requestId command arguments environment secrets volumes flavor
timeoutSeconds labels paths expand"""
FIELDS = NAMES.split()
KINDS_OF_LINE = ["header", "file", "lfsFile", "deletedFile", "deletedFolder", "other"]

part = st.one_of(st.sampled_from(WORDS), st.sampled_from(TRICKS), st.text(max_size=20))
scalar = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(WORDS + TRICKS), st.text(max_size=30)
)
value = st.recursive(
    scalar,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(FIELDS), inner, max_size=5)),
    max_leaves=12,
)
json_body = st.dictionaries(st.sampled_from(FIELDS), value, max_size=6).map(lambda one: json.dumps(one).encode())
line = st.fixed_dictionaries({"key": st.sampled_from(KINDS_OF_LINE), "value": value}).map(
    lambda one: json.dumps(one).encode()
)
body = st.one_of(
    json_body,
    value.map(lambda one: json.dumps(one).encode()),
    st.lists(line, max_size=5).map(b"\n".join),
    st.binary(max_size=300),
    st.just(b"[" * 50_000),
)
query = st.dictionaries(
    st.sampled_from(
        ["limit", "cursor", "p", "recursive", "expand", "expires", "signature", "create_pr", "search", "tail", "type"]
    ),
    st.one_of(st.sampled_from(["true", "0", "-1", "9" * 40, "1e5", "٣"]), st.text(max_size=10)),
    max_size=3,
)
headers = st.dictionaries(
    st.sampled_from(["Range", "If-None-Match", "If-Range", "Content-Type", "Accept", "Host"]),
    st.sampled_from(
        ["bytes=5-1", "bytes=0-0", "bytes=99999999999999-", "bytes=-0", "application/json", "*", "localhost:1"]
    ),
    max_size=2,
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outer")


@pytest.fixture(scope="module")
def wire(place: Path):
    with serve(place / "hub", user="alice") as hub:
        line = Wire(hub.url, hub.token)
        line.create("alice/model")
        sha256 = line.send_large("alice/model", bytes(5000))
        assert line.commit("alice/model", small("a.txt", b"a"), large("d/b.bin", sha256)).status == 200
        line.post("/api/models/alice/model/tag/main", {"tag": "v1"})
        yield line
        assert_sound(hub, place)


def assert_sound(hub: LocalHub, place: Path) -> None:
    assert removal.verify(hub.store) == []
    assert [path.name for path in place.iterdir()] == ["hub"]
    assert {path.name for path in hub.store.folder.iterdir()} <= {
        "hub.sqlite",
        "hub.sqlite-wal",
        "hub.sqlite-shm",
        "blobs",
        "xorbs",
        "incoming",
    }
    assert list((hub.store.folder / "incoming").iterdir()) == []


def address(route: Route, fill: list[str]) -> str:
    parts = [
        fill[n % len(fill)] if segment.startswith("{") and segment != "{kinds}" else segment
        for n, segment in enumerate(route.segments)
    ]
    return "/" + "/".join(quote(one.replace("{kinds}", "models"), safe="", errors="replace") for one in parts)


def assert_civil(reply: Reply) -> None:
    assert reply.status < 500 or reply.status == 501, reply
    if reply.status >= 400:
        assert reply.headers["X-Error-Code"], reply
        assert reply.json["error"]


NO_WAIT = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {'/'.join(route.segments)}")
@settings(max_examples=6 * MORE, **NO_WAIT)
@given(fill=st.lists(part, min_size=1, max_size=6), body=body, query=query, headers=headers)
def test_every_route_answers_whatever_comes(wire: Wire, route: Route, fill, body, query, headers):
    target = address(route, fill) + ("?" + "&".join(f"{k}={quote(v)}" for k, v in query.items()) if query else "")
    assert_civil(wire.send(route.method, target, body, headers))


@settings(max_examples=150 * MORE, **NO_WAIT)
@given(
    raw=st.text(
        st.characters(codec="ascii", exclude_characters=" \r\n\t#?", min_codepoint=33, max_codepoint=126), max_size=60
    )
)
def test_every_address_is_answered(wire: Wire, raw: str):
    assert_civil(wire.send("GET", "/" + raw.lstrip("/")))


@settings(max_examples=150 * MORE, **NO_WAIT)
@given(
    fields=st.dictionaries(st.sampled_from(FIELDS), value, max_size=6),
    route=st.sampled_from([r for r in ROUTES if r.body == "memory"]),
)
def test_every_shape_of_json_is_answered_where_the_address_is_right(wire: Wire, fields: dict, route: Route):
    if route.segments[:2] == ("api", "repos"):
        fields = {**fields, "organization": "alice"}
    names = {
        "{namespace}": "alice",
        "{name}": "model",
        "{revision}": "main",
        "{num}": "1",
        "{kinds}": "models",
        "{name}.git": "model.git",
    }
    target = "/" + "/".join(
        names.get(segment, "x" if segment.startswith("{") else segment) for segment in route.segments
    )
    if route.segments[-1] in ("delete", "move"):
        return  # these would take away what the other examples need
    assert_civil(wire.send(route.method, target, json.dumps(fields).encode(), {"Content-Type": "application/json"}))


@settings(max_examples=200 * MORE, **NO_WAIT)
@given(st.data())
def test_a_damaged_commit_is_refused_or_whole(wire: Wire, data: st.DataObject):
    lines = [
        {"key": "header", "value": {"summary": "s", "description": data.draw(st.text(max_size=20))}},
        {
            "key": "file",
            "value": {
                "path": data.draw(st.one_of(part, st.just("f.txt"))),
                "content": base64.b64encode(b"x").decode(),
                "encoding": "base64",
            },
        },
        {
            "key": "lfsFile",
            "value": {"path": "l.bin", "oid": data.draw(st.sampled_from(["0" * 64, "x", "A" * 64, ""]))},
        },
        {"key": "deletedFile", "value": {"path": data.draw(part)}},
    ]
    raw = b"\n".join(
        json.dumps(one).encode() for one in data.draw(st.permutations(lines))[: data.draw(st.integers(0, 4))]
    )
    start = data.draw(st.integers(0, len(raw)))
    raw = raw[:start] + data.draw(st.binary(max_size=5)) + raw[start + data.draw(st.integers(0, 5)) :]
    assert_civil(wire.send("POST", "/api/models/alice/model/commit/main", raw))


@settings(max_examples=60 * MORE, **NO_WAIT)
@given(kind=st.sampled_from(["xorbs", "shards"]), noise=st.binary(max_size=40), cut=st.integers(0, 200))
def test_a_damaged_xorb_or_shard_is_refused_over_the_wire(wire: Wire, kind: str, noise: bytes, cut: int):
    storage = wire.storage("alice/model")
    good = make_xorb([b"x" * 100, b"y" * 50]) if kind == "xorbs" else make_shard([])
    target = f"/v1/xorbs/default/{hash_text(bytes(31) + noise[:1].ljust(1))}" if kind == "xorbs" else "/v1/shards"
    assert_civil(storage.send("POST", target, good[:cut] + noise + good[cut:]))


def test_a_body_larger_than_the_limit_is_refused_before_it_is_read(wire: Wire):
    for target, size in (("/api/repos/create", 2**25), ("/api/models/alice/model/commit/main", 2**40)):
        reply = wire.send("POST", target, None, {"Content-Length": str(size)})
        assert (reply.status, reply.headers["X-Error-Code"]) == (413, "TooLarge")
