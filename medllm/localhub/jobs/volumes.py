"""A job's volumes as folders of this machine: filled before it starts, read-write buckets taken back after it."""

import hashlib
import sqlite3
from pathlib import Path

from medllm.localhub.errors import HubRefusal, bad_request
from medllm.localhub.jobs.records import Volume
from medllm.localhub.store import blobs, buckets, commits, refs, repos, trees
from medllm.localhub.store.accounts import Caller
from medllm.localhub.store.store import Store
from medllm.localhub.validation import check_path

_KINDS = ("bucket", "model", "dataset", "space")


def _split(volume: Volume) -> tuple[str, str]:
    namespace, slash, name = volume.source.partition("/")
    if volume.kind not in _KINDS or not slash:
        raise bad_request("A volume must be a bucket, model, dataset or space called namespace/name")
    return namespace, name


def _contents(connection: sqlite3.Connection, caller: Caller, volume: Volume) -> dict[str, str]:
    """Return every file of the volume by its path, and its sha256."""
    below = (volume.path or "").strip("/")
    if volume.kind == "bucket":
        row = buckets.readable(connection, caller, *_split(volume))
        cut = len(below) + 1 if below else 0
        return {file["path"][cut:]: file["sha256"] for file in buckets.files(connection, row["id"], below)}
    repo = repos.readable(connection, caller, volume.kind, _split(volume))
    repos.open_gate(connection, caller, repo)
    commit_id = refs.resolve(connection, repo, volume.revision or "main")
    node = trees.find(connection, commits.tree_of(connection, repo, commit_id), below)
    if node is None or not node.folder:
        raise HubRefusal(
            "server.no-such-folder", f"{volume.source} has no folder {below}", status=400, error_code="BadRequest"
        )
    return {path: file.sha256 for path, file in trees.files(connection, node.oid).items()}


def fill(store: Store, caller: Caller, volume: Volume, folder: Path) -> None:
    """Lay a volume's files into a folder."""
    with store.database.read() as connection:
        found = {path: blobs.find(connection, sha256) for path, sha256 in _contents(connection, caller, volume).items()}
    folder.mkdir(parents=True)
    for path, blob in found.items():
        place = folder / check_path(path, store.limits)
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("xb") as file:
            for chunk in blobs.read(store.files, blob.pieces if blob else ()):
                file.write(chunk)


def take_back(store: Store, caller: Caller, volume: Volume, folder: Path) -> int:
    """Put what a job has added or changed in a read-write bucket back into it; how many files that were."""
    if volume.kind != "bucket" or volume.read_only:
        return 0
    below = (volume.path or "").strip("/")
    with store.database.read() as connection:
        bucket = buckets.writable(connection, caller, *_split(volume))["id"]
        known = {file["path"]: file for file in buckets.files(connection, bucket, below)}
    count = 0
    for file in sorted(folder.rglob("*")):
        if file.is_symlink() or not file.is_file():
            continue
        path = check_path("/".join(filter(None, (below, file.relative_to(folder).as_posix()))), store.limits)
        old = known.get(path)
        if old is None or not _same(store, old["sha256"], old["size"], file):
            buckets.take_in(store, bucket, path, file)
            count += 1
    return count


def _same(store: Store, sha256: str, size: int, file: Path) -> bool:
    if file.stat().st_size != size:
        return False
    with file.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest() == sha256
