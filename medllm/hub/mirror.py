"""Mirror a repository into a Hub of your own: files, card and licence, under the name and commit of its source."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants

from medllm.errors import HubError
from medllm.hub.artifact import Artifact, Kind
from medllm.hub.client import MIRROR_FILE, PUBLIC_HUB, Hub, connect
from medllm.hub.mirror_source import MirrorSource, check_source, is_copied, source_in_folder
from medllm.hub.push import KEPT, create
from medllm.resource_errors import disk_is_full

T = TypeVar("T")


def source_on_hub(hub: Hub, repo_id: str, kind: Kind, revision: str) -> MirrorSource:
    """Download a repository's files from its Hub; a download that was cut off resumes."""
    artifact = hub.resolve(repo_id, kind, revision)
    state = hub.state_at(repo_id, kind, artifact.revision)
    wanted = tuple(sorted(name for name in (state.files if state else ()) if is_copied(name, kind)))
    if not wanted:
        raise HubError("hub.mirror-empty", f"{artifact}: holds no file to mirror. Name another revision.")
    hub.say(f"{artifact}: downloading {len(wanted)} files from {hub.name}")
    return MirrorSource(repo_id, kind, hub.pull(artifact, wanted), revision, artifact.revision, hub.endpoint)


def bundle(
    place: str | None, repo_id: str, kind: Kind, revision: str, folder: Path, say: Callable[[str], None]
) -> MirrorSource:
    """Download a repository into a folder that travels on a disk, as `hf download --local-dir` does."""
    with connect(place or PUBLIC_HUB, say=say) as hub:
        return _bundle(hub, repo_id, kind, revision, folder)


def _bundle(hub: Hub, repo_id: str, kind: Kind, revision: str, folder: Path) -> MirrorSource:
    artifact = hub.resolve(repo_id, kind, revision)
    ignored = [name for name in _names(hub, artifact) if not is_copied(name, kind)]
    hub.say(f"{artifact}: downloading into {folder}")
    hub.call(
        str(artifact),
        lambda api: str(
            api.snapshot_download(
                repo_id, repo_type=kind, revision=artifact.revision, local_dir=folder, ignore_patterns=ignored or None
            )
        ),
    )
    source = source_in_folder(folder, repo_id, kind, artifact.revision)
    check_source(source)
    return source


def _names(hub: Hub, artifact: Artifact) -> frozenset[str]:
    state = hub.state_at(artifact.repo_id, artifact.kind, artifact.revision)
    return state.files if state else frozenset()


def mirror(source: MirrorSource, into: Hub) -> Artifact:
    """Copy a repository into a Hub as one commit, tagged with the source's commit and the name the user wrote.

    What is mirrored already is not sent again, and files that an interrupted mirror sent are not either. When it
    fails, nothing is visible: a repository that it made is removed.
    """
    if into.endpoint == PUBLIC_HUB:
        raise HubError(
            "hub.mirror-public",
            f"{source.repo_id}: a mirror on {PUBLIC_HUB} would publish it again. Give --into a Hub of your own.",
        )
    tags = list(dict.fromkeys(name for name in (source.commit, source.revision) if name and name != "main"))
    there = _mirrored(into, source, source.commit)
    if there is None:
        check_source(source)
        there = Artifact(source.repo_id, source.kind, _commit_whole(source, into))
    for tag in tags:
        _point(into, there, tag)
    return there


def _mirrored(into: Hub, source: MirrorSource, commit: str | None) -> Artifact | None:
    refs = into.refs(source.repo_id, source.kind) if commit else None
    found = [ref.target_commit for ref in refs.tags if ref.name == commit] if refs else []
    return Artifact(source.repo_id, source.kind, found[0]) if found else None


def _commit_whole(source: MirrorSource, into: Hub) -> str:
    """Make the one commit; on a failure remove the repository again if this call made it."""
    repo_id, kind = source.repo_id, source.kind
    head = into.state_at(repo_id, kind)
    if head and not head.empty and MIRROR_FILE not in head.files:
        raise HubError(
            "hub.mirror-foreign",
            f"{repo_id}: {into.name} holds a {kind} of this name that is no mirror. It is never overwritten; remove "
            "or rename it there first.",
        )
    if head is None:
        into.call(repo_id, _with_room(repo_id, into, lambda api: create(api, repo_id, kind, private=False)))
    try:
        files = source.files()
        record = json.dumps(_record(source), ensure_ascii=False, indent=2) + "\n"
        into.say(f"{repo_id}: copying {len(files)} files into {into.name}")
        gone = (head.files if head else frozenset()) - set(files) - KEPT - {MIRROR_FILE}

        def commit(api: HfApi) -> str:
            added = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in files.items()]
            added.append(CommitOperationAdd(path_in_repo=MIRROR_FILE, path_or_fileobj=record.encode()))
            deleted = [CommitOperationDelete(path_in_repo=name) for name in sorted(gone)]
            done = api.create_commit(
                repo_id,
                [*added, *deleted],
                repo_type=kind,
                commit_message=f"Mirror of {source.commit or source.revision}",
                parent_commit=head.artifact.revision if head else None,
            )
            return str(done.oid)

        with _plain_uploads():
            return into.call(repo_id, _with_room(repo_id, into, commit))
    except BaseException:
        if head is None:
            _remove_if_empty(into, repo_id, kind)
        raise


@contextmanager
def _plain_uploads() -> Iterator[None]:
    """Send whole files while the block runs: over xet the client tries a full disk again for minutes."""
    before = constants.HF_HUB_DISABLE_XET
    constants.HF_HUB_DISABLE_XET = True
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_XET = before


def _with_room(repo_id: str, into: Hub, call: Callable[[HfApi], T]) -> Callable[[HfApi], T]:
    """Wrap a call so that a full disk, here or at the Hub, is one error with the remedy."""

    def guarded(api: HfApi) -> T:
        try:
            return call(api)
        except Exception as fault:
            if not _is_full(fault):
                raise
            raise HubError(
                "hub.mirror-disk-full",
                f"{repo_id}: the disk of {into.name} is full, and the mirror is not there. Free some space and run the "
                "same command again; files that were sent whole are not sent again.",
            ) from fault

    return guarded


def _record(source: MirrorSource) -> dict[str, object]:
    return {
        "repo_id": source.repo_id,
        "kind": source.kind,
        "from": source.origin,
        "revision": source.revision,
        "commit": source.commit,
        "left_out": source.left_out(),
    }


def _point(into: Hub, artifact: Artifact, tag: str) -> None:
    """Let a name of the source mean the mirror's commit; a tag of the source that has moved moves here too."""

    def point(api: HfApi) -> None:
        refs = api.list_repo_refs(artifact.repo_id, repo_type=artifact.kind)
        before = {ref.name: ref.target_commit for ref in refs.tags}
        if before.get(tag) == artifact.revision:
            return
        if tag in before:
            api.delete_tag(artifact.repo_id, tag=tag, repo_type=artifact.kind)
        api.create_tag(artifact.repo_id, tag=tag, revision=artifact.revision, repo_type=artifact.kind)

    into.call(artifact.repo_id, point)


def _remove_if_empty(into: Hub, repo_id: str, kind: Kind) -> None:
    state = into.state_at(repo_id, kind)
    if state is None or state.empty:
        into.call(repo_id, lambda api: api.delete_repo(repo_id, repo_type=kind, missing_ok=True))


def _is_full(fault: BaseException | None) -> bool:
    while fault is not None:
        status = getattr(getattr(fault, "response", None), "status_code", None)
        if status == 507 or disk_is_full(fault):
            return True
        fault = fault.__cause__ or fault.__context__
    return False


def source_of(place: str | None, repo_id: str, kind: Kind, revision: str, say: Callable[[str], None]) -> MirrorSource:
    """Find the source at an address, in a folder of files, in the folder of another embedded Hub, or on the Hub."""
    folder = Path(place) if place and not place.startswith(("http://", "https://")) else None
    if folder and not (folder / "hub.sqlite").is_file():
        return source_in_folder(folder, repo_id, kind, revision)
    with connect(place or PUBLIC_HUB, say=say) as hub:
        return source_on_hub(hub, repo_id, kind, revision)
