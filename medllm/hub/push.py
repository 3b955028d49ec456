"""Push a folder as one commit, all or nothing, tagged when it is complete; unfinished work goes to a branch."""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi, constants
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import _xet_progress_reporting
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from medllm.errors import HubError
from medllm.files import atomic_folder
from medllm.hub.artifact import Artifact, Kind, Provenance
from medllm.hub.client import Hub, RepoState
from medllm.hub.errors import MovedError
from medllm.work_progress import WorkProgress, report_progress

STAGED_ABOVE = 50 * 10**9
"""Bytes above which files go to a branch one by one first: a file that has arrived there is not sent again."""

KEPT = {".gitattributes"}
"""Files that the Hub puts into a repository; every commit keeps them."""


def writable_head(hub: Hub, repo_id: str, kind: Kind, stage: str) -> RepoState | None:
    """Return the state that our commit follows, or None for a new repository; foreign content is an error."""
    head = hub.state_at(repo_id, kind)
    if head is None or head.empty:
        return head
    if head.provenance is None:
        raise HubError(
            "hub.foreign-files",
            f"{repo_id}: holds {len(head.files)} files that medllm did not make and never overwrites. Give the recipe "
            "another name or namespace.",
        )
    if head.provenance.stage != stage:
        raise HubError(
            "hub.other-stage",
            f"{repo_id}: holds the stage `{head.provenance.stage}`, not `{stage}`, of the recipe "
            f"`{head.provenance.recipe}`. Give this recipe another name.",
        )
    return head


def push(
    hub: Hub,
    folder: Path,
    repo_id: str,
    kind: Kind,
    *,
    head: RepoState | None,
    private: bool = False,
    staged_above: int = STAGED_ABOVE,
) -> Artifact:
    """Push a finished folder onto `head` (the state when the work began) and tag the commit by its digest.

    If a run was killed between the commit and the tag, only the tag is added.
    """
    provenance = Provenance.read((folder / Provenance.FILE).read_text(encoding="utf-8"), str(folder))
    standing = writable_head(hub, repo_id, kind, provenance.stage)
    if standing and standing.provenance and standing.provenance.digest == provenance.digest:
        return tag_output(hub, standing.artifact, provenance)
    _refuse_if_moved(repo_id, head, standing)
    if standing is None:
        hub.call(repo_id, lambda api: create(api, repo_id, kind, private=private))
        standing = hub.state_at(repo_id, kind)
        if standing is None:
            raise HubError(
                "hub.vanished", f"{repo_id}: the repository was made a moment ago and has disappeared. Run again."
            )
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    sent = BytesSent(files.values())
    if sent.total > staged_above:
        _stage(hub, repo_id, kind, files, sent, branch=f"making-{provenance.digest[:12]}")
        sent = BytesSent(files.values(), "committing")
    try:
        commit = _commit(hub, standing, files, provenance, sent)
    except MovedError:
        winner = hub.state_at(repo_id, kind)
        if winner and winner.provenance and winner.provenance.digest == provenance.digest:
            return tag_output(
                hub, winner.artifact, provenance
            )  # our own commit whose answer was lost, or the commit of an equal run
        raise
    _drop_branch(hub, repo_id, kind, f"making-{provenance.digest[:12]}")
    return tag_output(hub, Artifact(repo_id, kind, commit), provenance)


def _refuse_if_moved(repo_id: str, head: RepoState | None, standing: RepoState | None) -> None:
    """Raise if another output was pushed since; a changed card or setting is allowed."""
    before = head.provenance if head else None
    after = standing.provenance if standing else None
    if after and (before is None or before.digest != after.digest):
        raise MovedError(
            "hub.moved",
            f"{repo_id}: another run pushed {after.tag} there while this one was at work; nothing was overwritten. "
            "Run again to see what is left to do.",
        )


def create(api: HfApi, repo_id: str, kind: Kind, *, private: bool) -> None:
    """Make an empty repository; an existing one stays as it is."""
    sdk = "gradio" if kind == "space" else None
    api.create_repo(repo_id, repo_type=kind, private=private, exist_ok=True, space_sdk=sdk)


class BytesSent:
    """How many bytes of a push have been sent, by whichever protocol the client sends them; reported as they go."""

    def __init__(self, files: Iterable[Path], what: str = "") -> None:
        self.total = sum(path.stat().st_size for path in files)
        self._what = what
        self._parts: dict[object, int] = {}
        self._lock = Lock()
        self._report(now=True)

    def reach(self, part: object, size: int) -> None:
        """Count so many bytes of a file, or of a group of files, as sent; a retry does not count them again."""
        with self._lock:
            self._parts[part] = max(size, self._parts.get(part, 0))
        self._report()

    def add(self, name: str, path: Path) -> CommitOperationAdd:
        """Return the operation that adds this file and counts its bytes."""
        operation = _CountedAdd(path_in_repo=name, path_or_fileobj=path)
        operation.sent = self
        return operation

    @contextmanager
    def by_xet(self) -> Iterator[None]:
        """Count in this block what the client sends over xet: it reports to its bars alone, so this takes their place.

        Where the user has switched the bars off, the client reports nothing.
        """
        if constants.HF_HUB_DISABLE_XET or constants.HF_HUB_DISABLE_PROGRESS_BARS:
            yield
            return
        bars, hidden = _xet_progress_reporting.XetUploadProgressReporter, are_progress_bars_disabled()
        _xet_progress_reporting.XetUploadProgressReporter = lambda **_: _XetSent(self)  # type: ignore[misc,assignment]
        enable_progress_bars()
        try:
            yield
        finally:
            _xet_progress_reporting.XetUploadProgressReporter = bars  # type: ignore[misc]
            if hidden:
                disable_progress_bars()

    def finish(self) -> None:
        """Report that all is sent, also what the client sent within the commit itself."""
        self._parts[self] = self.total
        self._report(now=True)

    def _report(self, *, now: bool = False) -> None:
        done = min(sum(self._parts.values()), self.total)
        report_progress(WorkProgress(self._what, done, self.total, "bytes"), now=now)


class _XetSent:
    """Receives the progress of one group of uploads over xet, in the form that the client's bars receive it."""

    def __init__(self, sent: BytesSent) -> None:
        self._sent = sent

    def update_progress(self, group: Any, _files: object = None) -> None:  # noqa: ANN401  hf_xet's own type
        self._sent.reach(self, int(group.total_bytes_completed))

    def close(self) -> None:
        pass


class _CountedAdd(CommitOperationAdd):
    """An added file whose bytes are counted as they are sent over git-lfs, where the client would draw a bar."""

    sent: BytesSent

    @contextmanager
    def as_file(self, with_tqdm: bool = False) -> Iterator[BinaryIO]:
        with super().as_file() as file:
            if with_tqdm:
                read = file.read

                def counted_read(size: int = -1) -> bytes:
                    data = read(size)
                    self.sent.reach(self.path_in_repo, file.tell())
                    return data

                file.read = counted_read  # type: ignore[method-assign]
            yield file


def _commit(hub: Hub, standing: RepoState, files: dict[str, Path], provenance: Provenance, sent: BytesSent) -> str:
    """Make the one commit: add the new files, delete the files that are gone, and check the parent."""
    repo_id, kind = standing.artifact.repo_id, standing.artifact.kind
    gone = standing.files - set(files) - KEPT

    def commit(api: HfApi) -> str:
        operations: list[CommitOperationAdd | CommitOperationCopy | CommitOperationDelete] = [
            sent.add(name, path) for name, path in files.items()
        ]
        operations += [CommitOperationDelete(path_in_repo=name) for name in sorted(gone)]
        done = api.create_commit(
            repo_id,
            operations,
            repo_type=kind,
            commit_message=f"{provenance.stage} of {provenance.recipe}, {provenance.digest[:12]}",
            parent_commit=standing.artifact.revision,
        )
        return str(done.oid)

    with sent.by_xet():
        oid = hub.call(repo_id, commit)
    sent.finish()
    return oid


def _stage(hub: Hub, repo_id: str, kind: Kind, files: dict[str, Path], sent: BytesSent, *, branch: str) -> None:
    """Push the files one by one to a branch; the final commit then finds their bytes on the Hub and sends none."""
    hub.call(repo_id, lambda api: api.create_branch(repo_id, branch=branch, repo_type=kind, exist_ok=True))
    there = hub.call(repo_id, lambda api: _sizes(api, repo_id, kind, branch))
    for name, path in files.items():
        if there.get(name) == path.stat().st_size:
            sent.reach(name, path.stat().st_size)
            continue
        with sent.by_xet():
            hub.call(
                f"{repo_id}: {name}",
                lambda api, name=name, path=path: api.create_commit(  # type: ignore[misc]
                    repo_id,
                    [sent.add(name, path)],
                    repo_type=kind,
                    revision=branch,
                    commit_message=f"{name} on its way",
                ),
            )


def _sizes(api: HfApi, repo_id: str, kind: Kind, branch: str) -> dict[str, int]:
    tree: Iterable[object] = api.list_repo_tree(repo_id, repo_type=kind, revision=branch, recursive=True)
    return {entry.path: entry.size for entry in tree if isinstance(entry, RepoFile)}


def _drop_branch(hub: Hub, repo_id: str, kind: Kind, branch: str) -> None:
    refs = hub.refs(repo_id, kind)
    if refs and any(ref.name == branch for ref in refs.branches):
        hub.call(repo_id, lambda api: api.delete_branch(repo_id, branch=branch, repo_type=kind))


def push_once_tagged(hub: Hub, folder: Path, repo_id: str, kind: Kind, tag: str) -> Artifact:
    """Push a folder that is not the output of a stage, unless its tag exists already."""
    refs = hub.refs(repo_id, kind)
    there = [ref.target_commit for ref in refs.tags if ref.name == tag] if refs else []
    if there:
        return Artifact(repo_id, kind, there[0])
    hub.call(repo_id, lambda api: create(api, repo_id, kind, private=True))
    here = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    standing = hub.state_at(repo_id, kind)
    gone = (standing.files if standing else frozenset()) - set(here) - KEPT

    def commit(api: HfApi) -> str:
        added = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in here.items()]
        deleted = [CommitOperationDelete(path_in_repo=name) for name in sorted(gone)]
        done = api.create_commit(repo_id, [*added, *deleted], repo_type=kind, commit_message=tag)
        api.create_tag(repo_id, tag=tag, revision=done.oid, repo_type=kind, exist_ok=True)
        return str(done.oid)

    return Artifact(repo_id, kind, hub.call(repo_id, commit))


def restore_on_main(hub: Hub, artifact: Artifact) -> bool:
    """Put a tagged version back on main if another has been pushed since; return False if main already holds it."""
    head = hub.state_at(artifact.repo_id, artifact.kind)
    provenance = hub.provenance(artifact)
    if head is None or provenance is None or head.provenance is None or head.provenance.digest == provenance.digest:
        return False
    wanted = hub.state_at(artifact.repo_id, artifact.kind, artifact.revision)
    files = (wanted.files if wanted else frozenset()) - KEPT

    def commit(api: HfApi) -> None:
        copied = [CommitOperationCopy(name, name, src_revision=artifact.revision) for name in sorted(files)]
        gone = [CommitOperationDelete(path_in_repo=name) for name in sorted(head.files - files - KEPT)]
        api.create_commit(
            artifact.repo_id,
            [*copied, *gone],
            repo_type=artifact.kind,
            commit_message=f"{provenance.stage} of {provenance.recipe}, {provenance.digest[:12]}, put back",
            parent_commit=head.artifact.revision,
        )

    hub.call(artifact.repo_id, commit)
    return True


def tag_output(hub: Hub, artifact: Artifact, provenance: Provenance) -> Artifact:
    """Mark the output as made. The tag comes last: without it nothing counts as made, with it all files are there."""
    message = f"{provenance.stage} of {provenance.recipe}, digest {provenance.digest}"
    hub.call(
        artifact.repo_id,
        lambda api: api.create_tag(
            artifact.repo_id,
            tag=provenance.tag,
            tag_message=message,
            revision=artifact.revision,
            repo_type=artifact.kind,
            exist_ok=True,
        ),
    )
    return artifact


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
