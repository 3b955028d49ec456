"""Mirror a repository into a Hub of your own: checked files, card and licence, under its source's name and commit."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants

from medllm.errors import HubError, disk_is_full
from medllm.hub.artifact import COMMIT, Artifact, Kind
from medllm.hub.client import MIRROR_FILE, PUBLIC_HUB, Hub, connect
from medllm.hub.push import KEPT, BytesSent, create
from medllm.wording import number_of

LEFT_OUT = {
    "model": ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.h5", "*.msgpack", "*.ot", "*.py"),
    "dataset": ("*.pt", "*.pth", "*.pkl", "*.pickle", "*.py"),
}
"""Files that can run code when they are loaded: medllm loads safetensors only and runs nothing from a Hub."""

DOWNLOAD_RECORD = Path(".cache/huggingface/download")
"""Where `hf download --local-dir` records each file's commit, its hash and when it came."""


@dataclass(frozen=True)
class MirrorSource:
    """A repository to mirror: its name, where its files are, and which commit of the source they are."""

    repo_id: str
    kind: Kind
    folder: Path
    revision: str
    """As the user wrote it."""
    commit: str | None
    """The commit of the source; None when a folder does not record it."""
    origin: str
    """The address of the source's Hub, or `folder`."""

    def files(self) -> dict[str, Path]:
        """Return the files to copy, by their path in the repository."""
        return {name: path for name, path in _paths(self.folder) if is_copied(name, self.kind)}

    def left_out(self) -> list[str]:
        """List the files that are not copied, because loading them can run code."""
        return [name for name, _ in _paths(self.folder) if not is_copied(name, self.kind)]


def is_copied(name: str, kind: Kind) -> bool:
    """Return whether a mirror copies a file of this name."""
    return not any(fnmatch(name.lower(), pattern) for pattern in LEFT_OUT.get(kind, ()))


def source_in_folder(folder: Path, repo_id: str, kind: Kind, revision: str) -> MirrorSource:
    """Read a folder as `hf download --local-dir` leaves it; refuse what is cut off or of another commit."""
    if not folder.is_dir():
        raise HubError("hub.mirror-no-folder", f"{folder}: there is no such folder. Give --from DIR or --from URL.")
    record = folder / DOWNLOAD_RECORD
    unfinished = sorted(record.rglob("*.incomplete"))
    if unfinished:
        raise HubError(
            "hub.mirror-unfinished",
            f"{folder}: its download has not ended ({len(unfinished)} unfinished files). Run `hf download {repo_id} "
            f"--local-dir {folder}` again where there is a network.",
        )
    commits = {commit for commit, _ in _recorded(folder)}
    if len(commits) > 1:
        raise HubError(
            "hub.mirror-mixed",
            f"{folder}: holds files of {len(commits)} commits ({', '.join(sorted(commit[:7] for commit in commits))}). "
            "Download one revision into a new folder.",
        )
    named = revision if COMMIT.fullmatch(revision) else None
    recorded = next(iter(commits), None)
    if named and recorded and named != recorded:
        raise HubError(
            "hub.mirror-other-commit",
            f"{folder}: was downloaded at commit {recorded}, not {named}. Name that one, or download the other.",
        )
    return MirrorSource(repo_id, kind, folder, revision, recorded or named, "folder")


def check_source(source: MirrorSource) -> None:
    """Refuse files that are missing, cut off or changed since their download, and a model of pickles alone."""
    files = source.files()
    if not files:
        raise HubError("hub.mirror-empty", f"{source.folder}: holds no file to mirror. Give the repository's folder.")
    weights = [name for name in files if name.endswith(".safetensors")]
    if source.kind == "model" and not weights and (pickles := [n for n in source.left_out() if not n.endswith(".py")]):
        raise HubError(
            "hub.mirror-only-pickles",
            f"{source.repo_id}: its weights are pickled ({pickles[0]}), and no *.safetensors is there. Convert them "
            "where they come from, or take a revision that has safetensors.",
        )
    missing = [name for name in _indexed(source.folder) if name not in files]
    if missing:
        raise HubError(
            "hub.mirror-missing-shard",
            f"{source.folder}: its index names {missing[0]}, which is not there. Download the model again.",
        )
    for name in weights:
        if not _is_whole(files[name]):
            raise HubError("hub.mirror-cut-off", f"{files[name]}: the file is cut off. Download it again.")
    for name, (_, etag) in _records(source.folder).items():
        if name in files and etag not in _hashes(files[name], etag):
            raise HubError(
                "hub.mirror-changed",
                f"{files[name]}: is not what was downloaded (its hash is another). Download it again.",
            )


def _paths(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith((".cache/", ".git/")):
            yield name, path


def _records(folder: Path) -> dict[str, tuple[str, str]]:
    """Return commit and hash of each file that the download recorded."""
    record = folder / DOWNLOAD_RECORD
    records: dict[str, tuple[str, str]] = {}
    for path in sorted(record.rglob("*.metadata")):
        lines = path.read_text(encoding="utf-8").splitlines()
        if len(lines) >= 2 and COMMIT.fullmatch(lines[0]):
            records[path.relative_to(record).as_posix().removesuffix(".metadata")] = (lines[0], lines[1])
    return records


def _recorded(folder: Path) -> Iterable[tuple[str, str]]:
    """Return the records of the files that are still in the folder."""
    return [record for name, record in _records(folder).items() if (folder / name).is_file()]


def _hashes(path: Path, etag: str) -> set[str]:
    """Return the file's hash of the kind that the record has: sha256 of a large file, git's of a small one."""
    if re.fullmatch(r"[0-9a-f]{64}", etag):
        with path.open("rb") as stream:
            return {hashlib.file_digest(stream, "sha256").hexdigest()}
    if COMMIT.fullmatch(etag):
        content = path.read_bytes()
        return {hashlib.sha1(b"blob %d\0%b" % (len(content), content), usedforsecurity=False).hexdigest()}
    return {etag}  # of another kind: cannot be compared


def _indexed(folder: Path) -> list[str]:
    """List the files that the index of the weights names."""
    try:
        index = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
        return sorted(set(index["weight_map"].values()))
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, AttributeError, TypeError):
        raise HubError(
            "hub.mirror-bad-index",
            f"{folder / 'model.safetensors.index.json'}: is no index of weights. Download the model again.",
        ) from None


def _is_whole(path: Path) -> bool:
    """Return whether a safetensors file ends where its header puts the end of its data."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > size - 8:
            return False
        try:
            header = json.loads(stream.read(length))
            ends = [value["data_offsets"][1] for name, value in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, AttributeError, TypeError, IndexError):
            return False
    return bool(8 + length + max(ends, default=0) == size)


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
    sizes = _sizes(hub, artifact)
    ignored = [name for name in sizes if not is_copied(name, kind)]
    wanted = {name: size for name, size in sizes.items() if name not in ignored}
    _refuse_no_room(artifact, folder, sum(size for name, size in wanted.items() if not (folder / name).is_file()))
    hub.say(f"{artifact}: downloading {number_of(len(wanted), 'file')} into {folder}")
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


def _sizes(hub: Hub, artifact: Artifact) -> dict[str, int]:
    """Return the size of each file of a commit; 0 where the Hub does not give it."""
    info = hub.call(
        str(artifact),
        lambda api: api.repo_info(
            artifact.repo_id, repo_type=artifact.kind, revision=artifact.revision, files_metadata=True
        ),
    )
    return {file.rfilename: file.size or 0 for file in getattr(info, "siblings", None) or ()}


def _refuse_no_room(artifact: Artifact, folder: Path, size: int) -> None:
    """Refuse a download that the disk cannot hold, before it begins; what an earlier one left of a file counts as room.

    Raises:
        HubError: With both sizes.
    """
    place = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    begun = sum(path.stat().st_size for path in (folder / DOWNLOAD_RECORD).rglob("*.incomplete"))
    free = shutil.disk_usage(place).free + begun
    if size > free:
        raise HubError(
            "hub.no-room",
            f"{artifact}: {size / 1e9:.2f} GB are to be downloaded into {folder}, and its disk has {free / 1e9:.2f} GB "
            "free. Free some, or name a folder on another disk.",
        )


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
    commits = [ref.target_commit for ref in refs.tags if ref.name == commit] if refs else []
    return Artifact(source.repo_id, source.kind, commits[0]) if commits else None


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
        sent = BytesSent(files.values())

        def commit(api: HfApi) -> str:
            added = [sent.add(name, path) for name, path in files.items()]
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
