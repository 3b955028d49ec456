"""What a mirror copies: a repository's files in a folder, checked against what their download recorded."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from medllm.errors import HubError
from medllm.hub.artifact import COMMIT, Kind

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
            f"{folder}: holds files of {len(commits)} commits ({', '.join(sorted(one[:7] for one in commits))}). "
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
    found: dict[str, tuple[str, str]] = {}
    for path in sorted(record.rglob("*.metadata")):
        lines = path.read_text(encoding="utf-8").splitlines()
        if len(lines) >= 2 and COMMIT.fullmatch(lines[0]):
            found[path.relative_to(record).as_posix().removesuffix(".metadata")] = (lines[0], lines[1])
    return found


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
