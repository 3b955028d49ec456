"""A hub in this process: what the plainest use of the real client needs."""

import subprocess
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    BadRequestError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from medllm.localhub import LocalHub, serve
from tests.refusals import refused


def make_folder(folder: Path) -> Path:
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: mit\ntags: [医学]\n---\n# A model\n", encoding="utf-8")
    (folder / "data" / "試験.jsonl").write_text('{"a": 1}\n', encoding="utf-8")
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 12_000)
    (folder / "empty.txt").touch()
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_what_is_uploaded_comes_back_byte_for_byte(api: HfApi, tmp_path: Path):
    folder = make_folder(tmp_path / "folder")
    api.create_repo("alice/model")
    api.upload_folder(folder_path=folder, repo_id="alice/model")
    back = Path(api.snapshot_download("alice/model", cache_dir=tmp_path / "cache"))
    found = files_of(back)
    assert found.pop(".gitattributes")
    assert found == files_of(folder)
    assert api.model_info("alice/model").tags[0] == "医学"


def test_creating_a_repo_twice_is_refused_unless_it_may_exist(api: HfApi):
    first = api.create_repo("alice/data", repo_type="dataset", private=True)
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo("alice/data", repo_type="dataset")
    assert api.create_repo("alice/data", repo_type="dataset", exist_ok=True) == first
    assert first.repo_type == "dataset"


def test_branches_tags_and_old_commits_keep_their_state(api: HfApi):
    api.create_repo("alice/model")
    one = api.upload_file(path_or_fileobj=b"1", path_in_repo="n.txt", repo_id="alice/model").oid
    api.create_tag("alice/model", tag="v1")
    api.create_branch("alice/model", branch="dev/x")
    two = api.upload_file(path_or_fileobj=b"2", path_in_repo="n.txt", repo_id="alice/model").oid
    refs = api.list_repo_refs("alice/model")
    assert {b.name: b.target_commit for b in refs.branches} == {"main": two, "dev/x": one}
    assert {t.name: t.target_commit for t in refs.tags} == {"v1": one}
    for revision, content in {"main": "2", "v1": "1", "dev/x": "1", one: "1", two[:8]: "2"}.items():
        assert Path(api.hf_hub_download("alice/model", "n.txt", revision=revision)).read_text() == content


def test_a_commit_made_for_another_state_is_refused_whole(api: HfApi):
    api.create_repo("alice/model")
    old = api.model_info("alice/model").sha
    api.upload_file(path_or_fileobj=b"1", path_in_repo="n.txt", repo_id="alice/model")
    add = CommitOperationAdd("m.txt", b"2")
    with pytest.raises(HfHubHTTPError, match="412"):
        api.create_commit("alice/model", [add], commit_message="late", parent_commit=old)
    assert "m.txt" not in api.list_repo_files("alice/model")


def test_one_faulty_operation_keeps_the_whole_commit_out(api: HfApi):
    api.create_repo("alice/model")
    before = api.model_info("alice/model").sha
    operations = [CommitOperationAdd("good.txt", b"1"), CommitOperationDelete("missing.txt", is_folder=False)]
    with pytest.raises(RemoteEntryNotFoundError):
        api.create_commit("alice/model", operations, commit_message="half")
    assert api.model_info("alice/model").sha == before


@pytest.mark.parametrize(
    "path",
    ["../x", "a/../b", "/etc/x", ".git/config", ".GIT/x", "．．/x", "C:/x", "a//b", "x\0", "a\\b", ".g\u200bit/x"],
)
def test_no_path_leads_out_of_the_tree(api: HfApi, path: str):
    api.create_repo("alice/model", exist_ok=True)
    operation = CommitOperationAdd("placeholder", b"x")
    operation.path_in_repo = path
    with pytest.raises(BadRequestError):
        api.create_commit("alice/model", [operation], commit_message="out")


def test_what_is_missing_is_named_by_the_clients_own_exceptions(api: HfApi, hub: LocalHub):
    api.create_repo("alice/secret", private=True)
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("alice/nothing")
    with pytest.raises(RepositoryNotFoundError):
        HfApi(endpoint=hub.url, token=False).model_info("alice/secret")
    with pytest.raises(RevisionNotFoundError):
        api.model_info("alice/secret", revision="v9")
    with pytest.raises(RemoteEntryNotFoundError):
        api.hf_hub_download("alice/secret", "nothing.txt")


def test_commit_and_file_ids_are_gits_own(api: HfApi, tmp_path: Path):
    api.create_repo("alice/model")
    api.upload_file(path_or_fileobj=b"hello\n", path_in_repo="a/b.txt", repo_id="alice/model")
    made = subprocess.run(["git", "hash-object", "--stdin"], input=b"hello\n", capture_output=True, check=True)
    entry = api.get_paths_info("alice/model", ["a/b.txt"])[0]
    assert entry.blob_id == made.stdout.decode().strip()


def test_what_was_stored_is_there_for_the_next_server(tmp_path: Path):
    with serve(tmp_path / "hub", user="alice") as hub:
        api = HfApi(endpoint=hub.url, token=hub.token)
        api.create_repo("alice/model")
        sha = api.upload_file(path_or_fileobj=b"1", path_in_repo="n.txt", repo_id="alice/model").oid
    with serve(tmp_path / "hub", user="alice") as hub:
        assert HfApi(endpoint=hub.url, token=hub.token).model_info("alice/model").sha == sha


def test_a_port_that_is_taken_is_named(hub: LocalHub, tmp_path: Path):
    port = int(hub.url.rsplit(":", 1)[1])
    with refused("hub.port-not-free", f"127.0.0.1:{port}"):
        serve(tmp_path / "other", port)
