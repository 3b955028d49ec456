"""What a sender may hold before the hub knows who they are: no disk, little memory, no place for ever."""

import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from medllm.localhub import LocalHub, ServerLimits, serve
from tests.localhub.wire import Wire, hash_text

LIMITS = ServerLimits(header_seconds=0.5, connections=20, idle_seconds=1.0, header_bytes=4096)


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[LocalHub]:
    with serve(tmp_path / "hub", user="alice", limits=LIMITS) as running:
        yield running


def connect(hub: LocalHub) -> socket.socket:
    parts = urlsplit(hub.url)
    line = socket.create_connection((parts.hostname, parts.port), timeout=10)
    return line


def is_closed(line: socket.socket) -> bool:
    try:
        return line.recv(1) == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize(
    "address",
    [
        "/api/models/alice/model/commit/main",
        "/api/buckets/alice/ward/batch",
        "/cas/STORE/1/v1/shards",
        f"/cas/STORE/1/v1/xorbs/default/{hash_text(bytes(32))}",
        f"/lfs/1/{'a' * 64}/9000000/whole?expires=9999999999&signature=none",
    ],
)
def test_a_body_of_a_sender_who_may_not_send_it_is_never_on_the_disk(hub: LocalHub, address: str):
    line = Wire(hub.url, hub.token)
    line.create("alice/model")
    line.post("/api/buckets/alice/ward", {})
    address = address.replace("STORE", hub.store.id)
    method = "PUT" if address.startswith("/lfs/") else "POST"
    with connect(hub) as stranger:
        head = f"{method} {address} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\n\r\n"
        stranger.sendall(head.encode() + bytes(2_000_000))
        time.sleep(0.3)
        assert list((hub.store.folder / "incoming").iterdir()) == []
        stranger.sendall(bytes(7_000_000))
        assert stranger.recv(12) in (b"HTTP/1.1 401", b"HTTP/1.1 403")


def test_a_stranger_may_send_little_json(hub: LocalHub):
    Wire(hub.url, hub.token).create("alice/model")
    paths = {"paths": ["a" * 100] * 3000}
    assert Wire(hub.url).post("/api/models/alice/model/paths-info/main", {"paths": ["README.md"]}).status == 200
    assert Wire(hub.url).post("/api/models/alice/model/paths-info/main", paths).status == 413
    assert Wire(hub.url, hub.token).post("/api/models/alice/model/paths-info/main", paths).status == 200


def test_a_large_file_may_not_be_larger_than_declared(hub: LocalHub):
    line = Wire(hub.url, hub.token)
    line.create("alice/model")
    wanted = {"operation": "upload", "transfers": ["basic"], "objects": [{"oid": "a" * 64, "size": 10}]}
    entry = line.post("/alice/model.git/info/lfs/objects/batch", wanted).json["objects"][0]
    assert Wire(hub.url).send("PUT", entry["actions"]["upload"]["href"], bytes(11)).status == 413


def test_headers_that_never_end_are_given_up(strict: LocalHub):
    with connect(strict) as silent, connect(strict) as slow:
        for sign in b"GET / HTTP/1.1\r\nX: ":
            slow.sendall(bytes([sign]))
        began = time.monotonic()
        assert is_closed(silent)
        assert is_closed(slow)
        assert time.monotonic() - began < 5


def test_half_open_connections_do_not_keep_others_out(strict: LocalHub):
    held = [connect(strict) for _ in range(3 * LIMITS.connections)]
    try:
        assert Wire(strict.url).send("GET", "/api/models").status == 200
    finally:
        for line in held:
            line.close()


def test_headers_without_bound_are_given_up(strict: LocalHub):
    with connect(strict) as line:
        line.sendall(b"GET / HTTP/1.1\r\nX: " + b"a" * 3 * LIMITS.header_bytes)
        assert is_closed(line)


def test_a_body_that_trickles_is_given_up(strict: LocalHub):
    limits = replace(LIMITS)
    with connect(strict) as line:
        head = f"POST /api/validate-yaml HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {strict.token}\r\n"
        line.sendall(f"{head}Content-Length: 100000\r\n\r\n".encode())
        began, answer = time.monotonic(), b""
        line.settimeout(0.2)
        while not answer and time.monotonic() - began < 8:
            line.sendall(b"x")
            try:
                answer = line.recv(12)
            except TimeoutError:
                continue
        assert answer == b"HTTP/1.1 408"
        assert time.monotonic() - began < limits.idle_seconds + 5


def test_a_connection_serves_many_requests_one_after_another(strict: LocalHub):
    with connect(strict) as line:
        for _ in range(3):
            line.sendall(b"GET /api/models HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert line.recv(4096).startswith(b"HTTP/1.1 200")
            time.sleep(LIMITS.header_seconds * 1.5)


CODES = ["%00", "%0d%0aSet-Cookie:%20a=b", "%1b%5b31m", "%7f", "%c2%85", "%E2%80%A8", "%01"]
ADDRESSES = [
    "/api/models/{}",
    "/api/models/alice/{}",
    "/api/models/alice/model/revision/{}",
    "/api/models/alice/model/tree/main/{}",
    "/alice/model/resolve/main/{}",
    "/alice/model/resolve/{}/a.txt",
    "/api/models/alice/model/commits/main?limit=1&x={}",
    "/api/models?limit=1&search=&x={}",
    "/api/buckets/alice/{}",
    "/{}",
]


def test_a_control_character_in_an_address_gets_a_whole_answer(hub: LocalHub):
    line = Wire(hub.url, hub.token)
    line.create("alice/model")
    line.create("alice/other")
    for address in ADDRESSES:
        for code in CODES:
            reply = line.send("GET", address.format(code))
            assert reply.status in (200, 400, 404), (address, code)
            assert reply.headers["Set-Cookie"] is None
            assert all(value.isascii() and value.isprintable() for value in reply.headers.values())


def test_a_control_character_in_a_body_gets_a_whole_answer(hub: LocalHub):
    line = Wire(hub.url, hub.token)
    line.create("alice/model")
    for name in ("a\x00b", "a\r\nSet-Cookie: a=b", "a\x1b[31m", "\x7f", "a\u2028b", "é" * 40):
        assert_whole(line, name)


def assert_whole(line: Wire, name: str) -> None:
    bodies = {
        "/api/repos/create": {"name": name},
        "/api/repos/move": {"fromRepo": f"alice/{name}", "toRepo": f"alice/{name}x"},
        "/api/models/alice/model/tag/main": {"tag": name},
        "/api/models/alice/model/branch/x": {"startingPoint": name},
        "/api/models/alice/model/preupload/main": {"files": [{"path": name, "size": 1}]},
        f"/api/buckets/alice/{'x'}": {"visibility": name},
    }
    for address, body in bodies.items():
        reply = line.post(address, body)
        assert reply.status in (200, 400, 404), (address, reply)
        assert reply.headers["Set-Cookie"] is None
        assert all(value.isascii() and value.isprintable() for value in reply.headers.values())
