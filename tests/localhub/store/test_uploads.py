"""The upload half of xet: well-formed uploads become files, and broken ones are refused for good, not retried."""

import hashlib
import io
import os
import struct
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medllm.localhub import LocalHub, ServerLimits, serve
from medllm.localhub.store import accounts
from medllm.localhub.store.blobs import Spool
from medllm.localhub.store.uploads import read_shard, unpack_xorb
from medllm.localhub.validation import HubRefusal
from tests.localhub.wire import Wire, XetFile, hash_text, large, make_chunk, make_shard, make_xorb, small
from tests.refusals import refused

XORB = hashlib.sha256(b"xorb").digest()
FILE = hashlib.sha256(b"file").digest()


@pytest.fixture
def wire(hub: LocalHub) -> Wire:
    line = Wire(hub.url, hub.token)
    line.create("alice/model")
    return line


def unpacked(data: bytes, folder: Path, **limits: int) -> tuple[bytes, list[int]]:
    with Spool(folder / os.urandom(8).hex(), 10**9, "It") as target:
        ends = unpack_xorb(io.BytesIO(data), target, ServerLimits(**limits))
        target.finish()
        return target.path.read_bytes(), ends


@given(st.lists(st.binary(min_size=1, max_size=3000), min_size=1, max_size=6))
def test_every_way_of_packing_chunks_is_undone(tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes]):
    data, ends = unpacked(make_xorb(chunks), tmp_path_factory.getbasetemp())
    assert data == b"".join(chunks)
    assert [data[start:end] for start, end in zip([0, *ends], ends, strict=False)] == chunks


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_xorb_is_refused_and_nothing_else_happens(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
):
    good = make_xorb([b"abcdefgh" * 40, b"x" * 100, bytes(range(250))])
    damaged = damage(data, good)
    try:
        unpacked(damaged, tmp_path_factory.getbasetemp())
    except HubRefusal as refusal:
        assert refusal.status in (400, 413)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_shard_is_refused_and_nothing_else_happens(data: st.DataObject):
    good = make_shard([XetFile(FILE, XORB, 100, 0, 1, b"abc"), XetFile(XORB, FILE, 5, 2, 9)])
    try:
        list(read_shard(io.BytesIO(damage(data, good))))
    except HubRefusal as refusal:
        assert refusal.status == 400


def damage(data: st.DataObject, good: bytes) -> bytes:
    start = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(start, min(start + 60, len(good))))
    return good[:start] + data.draw(st.binary(max_size=60)) + good[end:]


def test_a_small_xorb_that_unpacks_to_much_is_refused(tmp_path: Path):
    bomb = make_chunk(bytes(10_000_000)) * 3
    assert len(bomb) < 200_000
    with refused("server.bad-request", 20_000_000):
        unpacked(bomb, tmp_path, xorb_unpacked=20_000_000)


def test_a_chunk_that_unpacks_to_more_than_it_says_is_refused(tmp_path: Path):
    lying = bytearray(make_chunk(bytes(10_000_000)))
    lying[5:8] = (1000).to_bytes(3, "little")
    with refused("server.bad-request", "size"):
        unpacked(bytes(lying), tmp_path)


def test_a_file_is_made_from_its_chunks_and_can_be_read_in_ranges(wire: Wire):
    content = os.urandom(300_001)
    sha256 = wire.send_xet("alice/model", content)
    assert wire.commit("alice/model", large("a.bin", sha256)).status == 200
    assert wire.send("GET", "/alice/model/resolve/main/a.bin").body == content
    for first, last in ((0, 0), (65535, 65536), (1000, 299_999), (300_000, 300_000)):
        part = wire.send("GET", "/alice/model/resolve/main/a.bin", headers={"Range": f"bytes={first}-{last}"})
        assert (part.status, part.body) == (206, content[first : last + 1])
        assert part.headers["Content-Range"] == f"bytes {first}-{last}/300001"
    beyond = wire.send("GET", "/alice/model/resolve/main/a.bin", headers={"Range": "bytes=300001-"})
    assert beyond.status == 416


@pytest.mark.parametrize(
    ("file", "fault"),
    [
        (XetFile(FILE, FILE, 100, 0, 1), "was not uploaded"),
        (XetFile(FILE, XORB, 100, 0, 9), "has 1 chunks"),
        (XetFile(FILE, XORB, 99, 0, 1), "have not 99 bytes"),
        (XetFile(FILE, XORB, 100, 1, 1), "has no chunk"),
        (XetFile(FILE, XORB, 100, 0, 1, b"something else"), "do not have the sha256"),
    ],
)
def test_a_shard_that_does_not_fit_its_xorbs_is_refused(wire: Wire, file: XetFile, fault: str):
    storage = wire.storage("alice/model")
    assert storage.send("POST", f"/v1/xorbs/default/{hash_text(XORB)}", make_xorb([b"x" * 100])).status == 200
    reply = storage.send("POST", "/v1/shards", make_shard([file]))
    assert (reply.status, fault in reply.json["error"]) == (400, True), reply


def test_nobody_builds_a_file_from_another_users_chunks(hub: LocalHub, wire: Wire):
    secret = os.urandom(1000)
    wire.storage("alice/model").send("POST", f"/v1/xorbs/default/{hash_text(XORB)}", make_xorb([secret]))
    with hub.store.database.write() as connection:
        token = accounts.issue(connection, accounts.add_user(connection, "bob"), role="write", label="test")
    bob = Wire(hub.url, token)
    bob.create("bob/model")
    stolen = bob.storage("bob/model").send("POST", "/v1/shards", make_shard([XetFile(FILE, XORB, 1000, 0, 1)]))
    assert (stolen.status, "was not uploaded" in stolen.json["error"]) == (400, True)
    with_alices_address = Wire(wire.storage("alice/model").url, bob.storage("bob/model").token)
    assert with_alices_address.send("POST", "/v1/shards", make_shard([])).status == 401


def test_a_number_of_segments_beyond_reason_is_refused_at_once(wire: Wire):
    shard = bytes(48) + FILE + struct.pack("<IIQ", 0, 2**32 - 1, 0)
    reply = wire.storage("alice/model").send("POST", "/v1/shards", shard)
    assert (reply.status, "segments" in reply.json["error"]) == (400, True)


def repeating(xorb: bytes, size: int, times: int) -> bytes:
    """A shard with one file that names the same chunk again and again."""
    out = bytearray(b"tag".ljust(32, b"\0") + struct.pack("<QQ", 2, 0))
    out += b"f" * 32 + struct.pack("<IIQ", 0, times, 0)
    out += (xorb + struct.pack("<IIII", 0, size, 0, 1)) * times
    return bytes(out + b"\xff" * 32 + bytes(16))


def test_a_file_far_larger_than_what_was_sent_for_it_is_refused_before_it_is_read(tmp_path: Path):
    limits = ServerLimits(xet_repeats=4, xet_repeats_above=1_000_000)
    with serve(tmp_path / "hub", user="alice", limits=limits) as hub:
        line = Wire(hub.url, hub.token)
        line.create("alice/model")
        storage, xorb = line.storage("alice/model"), b"x" * 32
        assert storage.send("POST", f"/v1/xorbs/default/{hash_text(xorb)}", make_xorb([bytes(100_000)])).status == 200
        assert storage.send("POST", "/v1/shards", repeating(xorb, 100_000, 14)).status == 200  # 1.4 MB: at the bound
        refused = storage.send("POST", "/v1/shards", repeating(xorb, 100_000, 15).replace(b"f" * 32, b"g" * 32))
        assert (refused.status, "HF_HUB_DISABLE_XET" in refused.json["error"]) == (400, True)


def test_a_commit_does_not_wait_for_another_users_reconstruction(hub: LocalHub):
    line = Wire(hub.url, hub.token)
    line.create("alice/model")
    storage, xorb = line.storage("alice/model"), b"x" * 32
    storage.send("POST", f"/v1/xorbs/default/{hash_text(xorb)}", make_xorb([bytes(16_000_000)]))
    shards = [
        threading.Thread(target=storage.send, args=("POST", "/v1/shards", repeating(xorb, 16_000_000, 60)))
        for _ in range(4)
    ]
    for one in shards:
        one.start()
    time.sleep(0.1)
    began = time.monotonic()
    assert line.commit("alice/model", small("a.txt", b"a")).status == 200
    took = time.monotonic() - began
    for one in shards:
        one.join()
    assert took < 3


@pytest.mark.parametrize("chunks", [[b""], [b"a"] * 20], ids=["empty", "too many"])
def test_a_xorb_of_chunks_that_cost_more_than_they_hold_is_refused(tmp_path: Path, chunks: list[bytes]):
    with serve(tmp_path / "hub", user="alice", limits=ServerLimits(xorb_chunks=10)) as hub:
        line = Wire(hub.url, hub.token)
        line.create("alice/model")
        body = make_xorb(chunks)
        assert line.storage("alice/model").send("POST", f"/v1/xorbs/default/{'a' * 64}", body).status == 400
