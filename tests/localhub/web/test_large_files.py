"""Large files: in one piece or in parts at signed addresses; after a takedown they are gone everywhere."""

import hashlib
import io
import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from medllm.localhub import LocalHub, ServerLimits, serve
from medllm.localhub.store import accounts, removal
from tests.localhub.wire import Wire, large, small

CONTENT = os.urandom(250_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LocalHub]:
    limits = ServerLimits(lfs_part=100_000, lfs_parted_above=200_000, idle_seconds=0.5)
    with serve(tmp_path / "hub", user="alice", limits=limits) as running:
        yield running


@pytest.fixture
def wire(hub: LocalHub) -> Wire:
    line = Wire(hub.url, hub.token)
    line.create("alice/model")
    return line


def actions(wire: Wire, **changes: object) -> dict:
    wanted = {"operation": "upload", "transfers": ["basic", "multipart"]} | changes
    wanted["objects"] = [{"oid": SHA256, "size": len(CONTENT)}]
    return wire.post("/alice/model.git/info/lfs/objects/batch", wanted).json["objects"][0].get("actions", {})


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the client's own way of sending a part
def test_the_client_sends_a_large_file_in_parts(api: HfApi, wire: Wire, hub: LocalHub):
    api.upload_file(path_or_fileobj=io.BytesIO(CONTENT), path_in_repo="a.bin", repo_id="alice/model")
    assert wire.send("GET", "/alice/model/resolve/main/a.bin").body == CONTENT
    assert len([path for path in (hub.store.folder / "blobs" / SHA256[:2]).iterdir() if SHA256 in path.name]) == 3


def test_parts_may_come_in_any_order_and_twice(wire: Wire):
    upload = actions(wire)["upload"]
    assert upload["header"]["chunk_size"] == "100000"
    parts = {number: CONTENT[(number - 1) * 100_000 : number * 100_000] for number in (3, 1, 2, 1)}
    tags = {
        number: Wire(wire.url).send("PUT", upload["header"][str(number)], data).headers["ETag"]
        for number, data in parts.items()
    }
    body = {"oid": SHA256, "parts": [{"partNumber": number, "etag": tag} for number, tag in tags.items()]}
    assert [Wire(wire.url).post(upload["href"], body).status for _ in range(2)] == [200, 200]
    assert actions(wire) == {}, "the hub asks again for what it has"
    assert wire.commit("alice/model", large("a.bin", SHA256)).status == 200


def test_parts_that_are_not_the_file_are_refused(wire: Wire):
    upload = actions(wire)["upload"]
    missing = {"oid": SHA256, "parts": [{"partNumber": 1}]}
    assert "was not uploaded" in Wire(wire.url).post(upload["href"], missing).json["error"]
    for number in "123":
        assert Wire(wire.url).send("PUT", upload["header"][number], b"x" * 10).status == 200
    wrong = Wire(wire.url).post(upload["href"], {"oid": SHA256, "parts": [{"partNumber": n} for n in (1, 2, 3)]})
    assert (wrong.status, "are not the" in wrong.json["error"]) == (400, True)


def test_an_address_fits_only_the_content_it_was_given_for(wire: Wire):
    href = actions(wire, transfers=["basic"])["upload"]["href"]
    anyone = Wire(wire.url)
    assert anyone.send("PUT", href, b"something else").status == 400
    other = href.replace(SHA256, hashlib.sha256(b"other").hexdigest())
    assert [anyone.send("PUT", one, CONTENT).status for one in (other, href.replace("/1/", "/2/", 1), href[:-1])] == [
        403,
        403,
        403,
    ]
    late = href.replace("expires=", "expires=1")
    assert anyone.send("PUT", late, CONTENT).status == 403
    assert wire.commit("alice/model", large("a.bin", SHA256)).status == 400
    assert anyone.send("PUT", href, CONTENT).status == 200
    assert wire.commit("alice/model", large("a.bin", SHA256)).status == 200


def test_verify_tells_whether_the_file_has_arrived(wire: Wire):
    found = actions(wire, transfers=["basic"])
    body = {"oid": SHA256, "size": len(CONTENT)}
    assert wire.post(found["verify"]["href"], body).status == 404
    Wire(wire.url).send("PUT", found["upload"]["href"], CONTENT)
    assert wire.post(found["verify"]["href"], body).status == 200


def test_a_sender_that_falls_silent_is_let_go_and_leaves_nothing(wire: Wire, hub: LocalHub):
    href = urlsplit(actions(wire, transfers=["basic"])["upload"]["href"])
    with socket.create_connection((href.hostname, href.port), timeout=60) as line:
        head = f"PUT {href.path}?{href.query} HTTP/1.1\r\nHost: {href.netloc}\r\nContent-Length: 250000\r\n\r\n"
        line.sendall(head.encode() + b"abc")
        assert b"408" in line.recv(100)
    incoming, deadline = hub.store.folder / "incoming", time.monotonic() + 60
    while list(incoming.iterdir()) and time.monotonic() < deadline:  # the answer comes first, then the broom
        time.sleep(0.05)
    assert list(incoming.iterdir()) == []


def test_parts_named_twice_or_larger_than_the_file_are_refused_before_they_are_read(wire: Wire):
    upload = actions(wire)["upload"]
    for number in "123":
        assert Wire(wire.url).send("PUT", upload["header"][number], CONTENT[:100_000]).status == 200
    for numbers in ((1, 1, 1), (1, 2, 3)):
        reply = Wire(wire.url).post(upload["href"], {"parts": [{"partNumber": n} for n in numbers]})
        assert reply.status == 400


SECRET, OTHER = b"\0patient 1234 Yamada" * 500, b"\0weights" * 700


@pytest.fixture
def line(hub: LocalHub) -> Wire:
    line = Wire(hub.url, hub.token)
    line.create("alice/model")
    return line


def on_disk(hub: LocalHub, content: bytes) -> bool:
    part = content[:200]
    for path in list(hub.store.folder.rglob("*")):
        with suppress(FileNotFoundError):  # what was on its way is removed after the answer
            if path.is_file() and part in path.read_bytes():
                return True
    return False


def take_down(api: HfApi, name: str, repo: str = "alice/model") -> None:
    api.permanently_delete_lfs_files(repo, [one for one in api.list_lfs_files(repo) if one.filename == name])


@pytest.mark.parametrize("way", ["send_large", "send_xet"])
def test_a_file_taken_down_is_in_no_commit_and_not_on_the_disk(hub: LocalHub, api: HfApi, line: Wire, way: str):
    send = getattr(line, way)
    line.commit("alice/model", large("list.bin", send("alice/model", SECRET)), small("a.txt", b"a"))
    line.commit("alice/model", large("deep/w.bin", send("alice/model", OTHER)), title="weights")
    api.create_tag("alice/model", tag="v1")
    api.create_branch("alice/model", branch="side")
    line.commit("alice/model", {"key": "deletedFile", "value": {"path": "list.bin"}}, title="too late")
    assert on_disk(hub, SECRET)
    before = [commit.title for commit in api.list_repo_commits("alice/model")]
    take_down(api, "list.bin")
    assert not on_disk(hub, SECRET)
    assert [one.filename for one in api.list_lfs_files("alice/model")] == ["deep/w.bin"]
    for revision in ("main", "v1", "side"):
        assert api.list_repo_files("alice/model", revision=revision) == [".gitattributes", "a.txt", "deep/w.bin"]
    assert [commit.title for commit in api.list_repo_commits("alice/model")] == before
    path = api.hf_hub_download("alice/model", "deep/w.bin", revision="v1")
    assert Path(path).read_bytes() == OTHER
    assert removal.verify(hub.store) == []


def test_what_another_repository_holds_stays_there(hub: LocalHub, api: HfApi, line: Wire):
    line.create("alice/other")
    sha256 = line.send_large("alice/model", SECRET)
    for repo in ("alice/model", "alice/other"):
        line.commit(repo, large("list.bin", sha256))
    take_down(api, "list.bin")
    assert line.send("GET", "/alice/model/resolve/main/list.bin").status == 404
    assert line.send("GET", "/alice/other/resolve/main/list.bin").body == SECRET


def test_neighbours_in_the_same_xorb_stay_whole(hub: LocalHub, api: HfApi, line: Wire):
    kept = b"k" * 65536
    line.commit("alice/model", large("both.bin", line.send_xet("alice/model", kept + SECRET)))
    line.commit("alice/model", large("kept.bin", line.send_xet("alice/model", kept)))
    take_down(api, "both.bin")
    assert line.send("GET", "/alice/model/resolve/main/kept.bin").body == kept
    assert not on_disk(hub, SECRET)


def test_the_same_content_can_be_sent_again_and_clients_forget_their_chunks(hub: LocalHub, line: Wire, api: HfApi):
    line.commit("alice/model", large("list.bin", line.send_xet("alice/model", SECRET)))
    storage = line.storage("alice/model").url
    take_down(api, "list.bin")
    assert line.storage("alice/model").url != storage
    line.commit("alice/model", large("list.bin", line.send_xet("alice/model", SECRET)))
    assert line.send("GET", "/alice/model/resolve/main/list.bin").body == SECRET


def test_only_those_who_may_write_take_down_or_list(hub: LocalHub, api: HfApi, line: Wire):
    line.commit("alice/model", large("list.bin", line.send_large("alice/model", SECRET)))
    with hub.store.database.write() as connection:
        token = accounts.issue(connection, accounts.add_user(connection, "bob"), role="write", label="test")
    with pytest.raises(HfHubHTTPError, match="403"):
        list(HfApi(endpoint=hub.url, token=token).list_lfs_files("alice/model"))
    body = {"deletions": {"sha": [one.file_oid for one in api.list_lfs_files("alice/model")]}}
    assert Wire(hub.url, token).post("/api/models/alice/model/lfs-files/batch", body).status == 403
    kept = {"deletions": {**body["deletions"], "rewriteHistory": False}}
    assert line.post("/api/models/alice/model/lfs-files/batch", kept).status == 501
    assert line.send("GET", "/alice/model/resolve/main/list.bin").status == 200
