"""Content that is taken down is gone: from history, from answers, and from the disk."""

from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from medllm.localhub import LocalHub
from medllm.localhub.store import accounts, gc
from tests.localhub.wire import Wire, large, small

SECRET, OTHER = b"\0patient 1234 Yamada" * 500, b"\0weights" * 700


@pytest.fixture
def line(hub: LocalHub) -> Wire:
    line = Wire(hub.url, hub.token)
    line.create("alice/model")
    return line


def on_disk(hub: LocalHub, content: bytes) -> bool:
    part = content[:200]
    return any(part in path.read_bytes() for path in hub.store.folder.rglob("*") if path.is_file())


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
    assert gc.verify(hub.store) == []


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
