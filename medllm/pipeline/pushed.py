"""What a run pushed: half-made work every few minutes, and a record that shows which versions were deleted there."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from huggingface_hub import HfApi
from huggingface_hub.hf_api import RepoFile

from medllm.files import write_text
from medllm.hub import Artifact, Hub
from medllm.hub.push import branch_of, push_wip
from medllm.pipeline.plan import BuildPlan, StagePlan
from medllm.recipe.base import Stage
from medllm.work_progress import poll_in_background

FILE = "pushed.json"
"""The record beside the work of a recipe: for each Hub and repository the commit of each digest."""

Pushed = dict[str, dict[str, dict[str, str]]]


def record_push(work: Path, recipe: str, hub: Hub, artifact: Artifact, digest: str) -> None:
    """Record that the Hub holds this output."""
    record = read_pushed(work, recipe)
    known = record.setdefault(hub_key(hub), {}).setdefault(artifact.repo_id, {})
    if known.get(digest) != artifact.revision:
        known[digest] = artifact.revision
        (work / recipe).mkdir(parents=True, exist_ok=True)
        write_text(work / recipe / FILE, json.dumps(record, indent=1, sort_keys=True) + "\n")


def read_pushed(work: Path, recipe: str) -> Pushed:
    """Read the record; it is empty where nothing was pushed, and where the file is broken."""
    try:
        record: Pushed = json.loads((work / recipe / FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return record


def hub_key(hub: Hub) -> str:
    """Name a Hub in the record: its address, or the full path of its folder."""
    return hub.name if hub.name.startswith(("http://", "https://")) else str(Path(hub.name).resolve())


def deleted_versions(plan: BuildPlan, hub: Hub, work: Path) -> dict[Stage, str]:
    """Find the outputs that this machine pushed to the Hub and that somebody deleted there, as `ORG/NAME@COMMIT`."""
    known = read_pushed(work, plan.recipe.name).get(hub_key(hub), {})
    return {item.stage: tag for item in plan.missing if (tag := _deleted(item, known))}


def _deleted(item: StagePlan, known: Mapping[str, Mapping[str, str]]) -> str | None:
    commit = known.get(item.repo_id, {}).get(item.digest)
    head = item.head.provenance if item.head else None
    if commit is None or (head and head.digest == item.digest):  # on main without its tag: the run sets it again
        return None
    return f"{item.repo_id}@{commit[:7]}"


def is_local(hub: Hub) -> bool:
    """Return whether the Hub keeps its content on this machine."""
    return urlsplit(hub.endpoint).hostname in ("127.0.0.1", "localhost", "::1")


def drop_copy(hub: Hub, artifact: Artifact, folder: Path) -> bool:
    """Remove a folder whose every file the Hub holds at this commit, byte for byte; else leave it and return False."""

    def listed(api: HfApi) -> dict[str, str]:
        tree = api.list_repo_tree(artifact.repo_id, repo_type=artifact.kind, revision=artifact.revision, recursive=True)
        return {
            entry.path: entry.lfs.sha256 if entry.lfs else entry.blob_id
            for entry in tree
            if isinstance(entry, RepoFile)
        }

    there = hub.call(str(artifact), listed)
    for path in (path for path in folder.rglob("*") if path.is_file()):
        if there.get(path.relative_to(folder).as_posix()) not in _hashes(path):
            return False
    shutil.rmtree(folder)
    return True


def _hashes(path: Path) -> tuple[str, str]:
    """The sha256 of a file, by which a Hub knows a large file, and git's hash, by which it knows a small one."""
    large, small = hashlib.sha256(), hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as stream:
        while part := stream.read(1 << 20):
            large.update(part)
            small.update(part)
    return large.hexdigest(), small.hexdigest()


REMADE = "cache"
"""The folder of half-made work that any machine makes again from the sources: nothing in it is worth sending."""


@contextmanager
def sync_wip(item: StagePlan, hub: Hub, part: Path, every: float | None, say: Callable[[str], None]) -> Iterator[None]:
    """Keep `part` on the Hub every so many seconds while the stage is at work; None keeps nothing."""
    if every is None:
        yield
        return
    last: dict[str, tuple[int, int]] = {}

    def look() -> None:
        nonlocal last
        try:
            now = _state(part)
            if now and now != last:
                _sync_once(item, hub, part)
                last = now
                say(f"{item.stage}: the work so far is kept on the Hub")
        except Exception as fault:  # whatever it is, the stage goes on and the next round tries again
            say(f"{item.stage}: the work so far could not be kept ({type(fault).__name__}: {fault})")

    with poll_in_background(look, every, f"keeper of {item.stage}"):
        yield


def _sync_once(item: StagePlan, hub: Hub, part: Path) -> None:
    still = part.with_name(part.name + ".still")  # a copy, so that the files pushed together belong together
    try:
        shutil.rmtree(still, ignore_errors=True)
        _copy(part, still)
        push_wip(hub, still, item.repo_id, item.kind, branch_of(item.digest))
    finally:
        shutil.rmtree(still, ignore_errors=True)


def _copy(part: Path, still: Path) -> None:
    """Copy checkpoints first: a log ahead of its checkpoint is cut when work goes on, one behind has a gap."""
    still.mkdir(parents=True)
    for path in sorted(part.iterdir(), key=lambda path: path.name != "checkpoints"):
        if path.is_dir() and path.name != REMADE:
            shutil.copytree(path, still / path.name)
        elif path.is_file():
            shutil.copy2(path, still)


def _state(folder: Path) -> dict[str, tuple[int, int]]:
    state = {}
    for root, folders, names in os.walk(folder):  # unlike rglob it tolerates folders that are deleted meanwhile
        if Path(root) == folder and REMADE in folders:
            folders.remove(REMADE)
        for path in (Path(root, name) for name in names):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            state[path.relative_to(folder).as_posix()] = (status.st_size, status.st_mtime_ns)
    return state
