"""Unfinished work on a branch of its repository, so that the loss of a machine loses no work."""

import shutil
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

from medllm.files import atomic_folder
from medllm.hub.artifact import Artifact, Kind
from medllm.hub.client import Hub
from medllm.hub.push import KEPT, create


def branch_of(digest: str) -> str:
    """Return the name of the branch that holds an unfinished output."""
    return f"making-{digest[:12]}"


def push_wip(hub: Hub, folder: Path, repo_id: str, kind: Kind, branch: str) -> None:
    """Make the branch hold exactly this folder; equal bytes are not sent again."""
    if hub.state_at(repo_id, kind) is None:
        hub.call(repo_id, lambda api: create(api, repo_id, kind, private=True))
    hub.call(repo_id, lambda api: api.create_branch(repo_id, branch=branch, repo_type=kind, exist_ok=True))
    here = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    there = hub.state_at(repo_id, kind, branch)
    gone = (there.files if there else frozenset()) - set(here) - KEPT

    def commit(api: HfApi) -> None:
        added = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in here.items()]
        deleted = [CommitOperationDelete(path_in_repo=name) for name in sorted(gone)]
        api.create_commit(
            repo_id, [*added, *deleted], repo_type=kind, revision=branch, commit_message="work in progress"
        )

    if here:
        hub.call(repo_id, commit)


def fetch_wip(hub: Hub, folder: Path, repo_id: str, kind: Kind, branch: str) -> bool:
    """Download the unfinished work; return False if there is none to resume."""
    refs = hub.refs(repo_id, kind)
    heads = [ref.target_commit for ref in refs.branches if ref.name == branch] if refs else []
    if not heads:
        return False
    pulled = hub.pull(Artifact(repo_id, kind, heads[0]))
    with atomic_folder(folder) as part:
        shutil.copytree(pulled, part, ignore=shutil.ignore_patterns(*KEPT), dirs_exist_ok=True)
    return True
