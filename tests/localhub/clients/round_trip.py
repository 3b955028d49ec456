"""What any version of huggingface_hub must be able to do with the hub; run by test_matrix.py in its own environment."""

import io
import os
import sys
import tempfile
from pathlib import Path

import huggingface_hub
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi, HfFileSystem
from huggingface_hub.utils import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

api = HfApi()
me = api.whoami()["name"]
tag = f"{huggingface_hub.__version__}-{os.environ.get('HF_HUB_DISABLE_XET', 0)}".replace(".", "-")
scratch = Path(tempfile.mkdtemp())


def expect(kind, call):
    try:
        call()
    except kind:
        return
    raise AssertionError(f"{kind.__name__} was expected")


def make_folder():
    folder = scratch / "folder"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: mit\ntags: [medical]\n---\n# 医学モデル\n", encoding="utf-8")
    (folder / "deep" / "er" / "試験.txt").write_text("答え：a\n", encoding="utf-8")
    (folder / "model.safetensors").write_bytes(bytes(i * i % 251 for i in range(400_000)) * 3)
    (folder / "zeros.bin").write_bytes(bytes(2_000_000))
    (folder / "empty.txt").touch()
    return folder


def files_of(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def repositories():
    for kind in ("model", "dataset", "space"):
        repo = f"{me}/{kind}-{tag}"
        extra = {"space_sdk": "gradio"} if kind == "space" else {}
        url = api.create_repo(repo, repo_type=kind, private=True, **extra)
        assert api.create_repo(repo, repo_type=kind, exist_ok=True, **extra) == url
        assert api.repo_info(repo, repo_type=kind).private is True
        assert api.repo_exists(repo, repo_type=kind)
        api.delete_repo(repo, repo_type=kind)
        assert not api.repo_exists(repo, repo_type=kind)


def folder_there_and_back():
    repo, folder = f"{me}/folder-{tag}", make_folder()
    api.create_repo(repo, private=True)
    api.upload_folder(folder_path=str(folder), repo_id=repo)
    api.upload_folder(folder_path=str(folder), repo_id=repo)  # nothing changed
    api.create_tag(repo, tag="v1", tag_message="one")
    api.upload_file(path_or_fileobj=b"bytes", path_in_repo="b.txt", repo_id=repo)
    with (folder / "zeros.bin").open("rb") as file:
        api.upload_file(path_or_fileobj=file, path_in_repo="copy.bin", repo_id=repo)
    back = files_of(api.snapshot_download(repo, revision="v1", local_dir=str(scratch / "back")))
    back = {name: data for name, data in back.items() if not name.startswith((".cache/", ".gitattributes"))}
    assert back == files_of(folder), sorted(back)
    assert {"b.txt", "copy.bin"} <= set(api.list_repo_files(repo))
    info = api.model_info(repo, files_metadata=True)
    assert {s.rfilename: s.size for s in info.siblings}["copy.bin"] == 2_000_000
    return repo


def commits(repo):
    head = api.model_info(repo).sha
    operations = [
        CommitOperationAdd("new/a.txt", io.BytesIO(b"a")),
        CommitOperationCopy("model.safetensors", "new/weights.safetensors"),
        CommitOperationDelete("deep/", is_folder=True),
    ]
    made = api.create_commit(repo, operations, commit_message="All at once", parent_commit=head)
    assert api.list_repo_commits(repo)[0].commit_id == made.oid
    names = set(api.list_repo_files(repo))
    assert "new/weights.safetensors" in names and not any(name.startswith("deep/") for name in names)
    api.create_branch(repo, branch="dev/x", revision="v1")
    assert any(name.startswith("deep/") for name in api.list_repo_files(repo, revision="dev/x"))
    infos = api.get_paths_info(repo, ["new", "new/weights.safetensors", "nothing"], expand=True)
    assert [info.path for info in infos] == ["new", "new/weights.safetensors"]
    assert infos[1].size == 1_200_000 and infos[1].lfs is not None


def faults(repo):
    expect(RepositoryNotFoundError, lambda: api.model_info(f"{me}/nothing"))
    expect(RevisionNotFoundError, lambda: api.model_info(repo, revision="v9"))
    expect(EntryNotFoundError, lambda: api.hf_hub_download(repo, "nothing.txt"))
    expect(RepositoryNotFoundError, lambda: HfApi(token=False).model_info(repo))


def file_system(repo):
    system = HfFileSystem()
    with system.open(f"{repo}/model.safetensors", "rb") as file:
        file.seek(1_000_000)
        assert file.read(5) == bytes(i * i % 251 for i in range(400_000))[200_000:200_005]
    assert {Path(name).name for name in system.ls(f"{repo}/new", detail=False)} == {"a.txt", "weights.safetensors"}


if __name__ == "__main__":
    repositories()
    made = folder_there_and_back()
    commits(made)
    faults(made)
    file_system(made)
    print(huggingface_hub.__version__, "speaks to", os.environ["HF_ENDPOINT"], "on", sys.version.split()[0])
