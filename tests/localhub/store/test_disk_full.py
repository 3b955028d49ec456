"""A full disk: the client is told so with 507, and the store stays sound and usable."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from medllm.localhub import ServerLimits, Store, serve
from medllm.localhub.store import removal
from tests.localhub.wire import Wire, large, small

MIB = 1024 * 1024


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MiB, where the system lets us make one."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", place], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("mounting a small file system needs root; the limit on file sizes below is tested anyway")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def assert_sound(folder: Path) -> None:
    store = Store(folder)
    assert removal.verify(store) == []
    assert list((folder / "incoming").iterdir()) == []
    store.close()


def test_a_disk_that_fills_up_refuses_each_kind_of_upload_and_works_on_when_there_is_room(tiny_disk: Path):
    ballast = tiny_disk / "ballast"
    with serve(tiny_disk / "hub", user="alice", limits=ServerLimits(free_bytes=0)) as hub:
        wire = Wire(hub.url, hub.token)
        assert wire.create("alice/model").status == 200
        before = wire.send("GET", "/api/models/alice/model").json["sha"]
        kept = wire.send_large("alice/model", b"k" * 1000)
        free = os.statvfs(tiny_disk)
        ballast.write_bytes(bytes(free.f_bavail * free.f_frsize - 512 * 1024))
        content = os.urandom(MIB)
        with pytest.raises(AssertionError, match="status=507"):
            wire.send_large("alice/model", content)
        with pytest.raises(AssertionError, match="status=507"):
            wire.send_xet("alice/model", content)
        reply = wire.commit("alice/model", small("a.bin", content))
        assert (reply.status, reply.headers["X-Error-Code"]) == (507, "DiskFull")
        assert wire.send("GET", "/api/models/alice/model").json["sha"] == before
        ballast.unlink()
        assert wire.commit("alice/model", small("a.bin", content), large("k.bin", kept)).status == 200
    assert_sound(tiny_disk / "hub")


def test_a_disk_without_room_for_a_single_page_says_so_and_recovers(tiny_disk: Path):
    ballast = tiny_disk / "ballast"
    with serve(tiny_disk / "hub", user="alice", limits=ServerLimits(free_bytes=0)) as hub:
        wire = Wire(hub.url, hub.token)
        assert wire.create("alice/model").status == 200
        free = os.statvfs(tiny_disk)
        ballast.write_bytes(bytes(free.f_bavail * free.f_frsize))
        statuses = {wire.commit("alice/model", small(f"{n}.txt", b"x" * 200)).status for n in range(40)}
        assert statuses <= {200, 507}
        assert 507 in statuses
        ballast.unlink()
        assert wire.commit("alice/model", small("after.txt", b"x")).status == 200
    assert_sound(tiny_disk / "hub")


def test_room_is_kept_for_the_metadata(tmp_path: Path):
    with serve(tmp_path / "hub", user="alice", limits=ServerLimits(free_bytes=2**60)) as hub:
        reply = Wire(hub.url, hub.token).create("alice/model")
    assert (reply.status, "disk is full" in reply.json["error"]) == (507, True)


LIMITED = """
import resource, sys
from medllm.localhub import serve
resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, resource.RLIM_INFINITY))
hub = serve(sys.argv[1], user="alice")
print(hub.url, hub.token, flush=True)
hub.run()
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="the system has no limit on file sizes")
def test_a_write_that_the_system_refuses_is_a_full_disk_to_the_client(tmp_path: Path):
    with subprocess.Popen(
        [sys.executable, "-c", LIMITED, tmp_path / "hub"], stdout=subprocess.PIPE, text=True
    ) as server:
        url, token = server.stdout.readline().split()
        wire = Wire(url, token)
        assert wire.create("alice/model").status == 200
        with pytest.raises(AssertionError, match="status=507"):
            wire.send_large("alice/model", os.urandom(4_000_000))
        small_one = wire.send_large("alice/model", os.urandom(100_000))
        assert wire.commit("alice/model", large("a.bin", small_one)).status == 200
        server.terminate()
        assert server.wait(60) == 0
    assert_sound(tmp_path / "hub")
