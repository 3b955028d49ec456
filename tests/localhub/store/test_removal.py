"""Collection gives back what nothing leads to, and nothing else."""

import hashlib
import os
from datetime import timedelta

from medllm.localhub import LocalHub
from medllm.localhub.store import removal
from tests.localhub.wire import Wire, large, small

NOW = timedelta(0)


def has(hub: LocalHub, sha256: str) -> bool:
    with hub.store.database.read() as connection:
        return connection.execute("SELECT 1 FROM blobs WHERE sha256 = ?", (sha256,)).fetchone() is not None


def test_a_deleted_repos_content_goes_unless_another_repo_holds_it(hub: LocalHub):
    wire = Wire(hub.url, hub.token)
    for name in ("one", "two"):
        wire.create(f"alice/{name}")
    shared, alone = wire.send_large("alice/one", b"shared" * 1000), wire.send_large("alice/one", b"alone" * 1000)
    wire.commit("alice/one", large("s.bin", shared), large("a.bin", alone))
    wire.commit("alice/two", large("s.bin", shared))
    wire.send("DELETE", "/api/repos/delete", b'{"name": "alice/one", "type": "model"}')
    assert has(hub, alone), "content stays until it is collected"
    done = removal.collect(hub.store, NOW)
    assert (has(hub, shared), has(hub, alone)) == (True, False)
    assert done.bytes >= 5000
    assert wire.send("GET", "/alice/two/resolve/main/s.bin").body == b"shared" * 1000
    assert removal.verify(hub.store) == []


def test_young_content_is_left_for_the_commit_that_will_name_it(hub: LocalHub):
    wire = Wire(hub.url, hub.token)
    wire.create("alice/model")
    sha256 = wire.send_large("alice/model", b"soon" * 1000)
    assert removal.collect(hub.store).blobs == 0
    assert wire.commit("alice/model", large("soon.bin", sha256)).status == 200
    removal.collect(hub.store, NOW)
    assert has(hub, sha256)


def test_commits_that_a_squash_left_behind_go_with_their_content(hub: LocalHub):
    wire = Wire(hub.url, hub.token)
    wire.create("alice/model")
    old = hashlib.sha256(b"old" * 100).hexdigest()
    first = wire.commit("alice/model", small("a.txt", b"old" * 100)).json["commitOid"]
    wire.commit("alice/model", small("a.txt", b"new"))
    removal.collect(hub.store, NOW)
    assert has(hub, old), "history holds it"
    wire.post("/api/models/alice/model/super-squash/main", {})
    assert wire.send("GET", f"/alice/model/resolve/{first}/a.txt").body == b"old" * 100
    assert removal.collect(hub.store, NOW).commits == 3
    assert not has(hub, old)
    assert wire.send("GET", f"/alice/model/resolve/{first}/a.txt").status == 404
    assert wire.send("GET", "/alice/model/resolve/main/a.txt").body == b"new"


def test_an_acknowledged_xorb_is_never_removed_and_still_serves_later_files(hub: LocalHub):
    wire, content = Wire(hub.url, hub.token), os.urandom(100_000)
    wire.create("alice/model")
    sha256 = wire.send_xet("alice/model", content)
    wire.commit("alice/model", large("a.bin", sha256))
    wire.send("DELETE", "/api/repos/delete", b'{"name": "alice/model", "type": "model"}')
    removal.collect(hub.store, NOW)
    assert not has(hub, sha256)
    xorbs = [path for path in (hub.store.folder / "xorbs").rglob("*") if path.is_file()]
    assert [path.read_bytes() for path in xorbs] == [content]
    wire.create("alice/model")
    assert wire.send_xet("alice/model", content) == sha256
    assert wire.commit("alice/model", large("a.bin", sha256)).status == 200
    assert wire.send("GET", "/alice/model/resolve/main/a.bin").body == content


def test_verify_names_what_was_tampered_with_or_lost(hub: LocalHub):
    wire = Wire(hub.url, hub.token)
    wire.create("alice/model")
    changed, lost = wire.send_large("alice/model", b"a" * 5000), wire.send_large("alice/model", b"b" * 5000)
    wire.commit("alice/model", large("a.bin", changed), large("b.bin", lost))
    (hub.store.folder / "blobs" / changed[:2] / changed).write_bytes(b"x" * 5000)
    (hub.store.folder / "blobs" / lost[:2] / lost).unlink()
    faults = removal.verify(hub.store)
    assert len(faults) == 2
    assert {fault[:64] for fault in faults} == {changed, lost}
