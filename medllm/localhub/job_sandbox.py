"""Prepares a job for this machine: `uv run` without a download, a clean environment, volumes as folders."""

import hashlib
import os
import re
import shutil
import sqlite3
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from medllm.localhub.store import blobs, buckets, commits, refs, repos, trees
from medllm.localhub.store.accounts import Caller
from medllm.localhub.store.store import Store
from medllm.localhub.validation import HubRefusal, bad_request, check_path

_INHERITED = re.compile(
    r"PATH|HOME|USER|LOGNAME|LANG|LANGUAGE|LC_\w+|TZ|TMPDIR|TERM|LD_LIBRARY_PATH|VIRTUAL_ENV|SSL_CERT_\w+|REQUESTS_CA_BUNDLE|"
    r"(?:CUDA|NVIDIA|ROCM|HIP|OMP|MKL)_\w+|(?:https?|no|all)_proxy|(?:HTTPS?|NO|ALL)_PROXY|UV_\w+|PIP_\w+"
)
_HEADER = re.compile(r"^# /// script\n((?:#(?: [^\n]*)?\n)*?)# ///$", re.MULTILINE)
_WITH_VALUE = frozenset(
    {"--with", "-w", "--python", "-p", "--index-url", "--extra-index-url", "--index", "--extra", "--env-file"}
)


@dataclass(frozen=True)
class JobCommand:
    """A command that can be started here, or the reason why it cannot."""

    command: list[str]
    notes: tuple[str, ...] = ()


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """Build the environment of a job: the paths of programs and devices, none of the owner's secrets."""
    own = {name: value for name, value in os.environ.items() if _INHERITED.fullmatch(name)}
    programs = str(Path(sys.executable).parent)
    return {**own, "PATH": f"{programs}{os.pathsep}{own.get('PATH', os.defpath)}", "PYTHONUNBUFFERED": "1", **given}


def relocate(text: str, volumes: Mapping[str, Path]) -> str:
    """Replace every path below a volume's mount point with the path in the folder mounted there.

    >>> relocate("--out=/data/x /database", {"/data": Path("/job/0")})
    '--out=/job/0/x /database'
    """
    for mount in sorted(volumes, key=len, reverse=True):
        pattern = rf"(?<![\w./-]){re.escape(mount.rstrip('/'))}(?![\w.-])"
        text = re.sub(pattern, str(volumes[mount]).replace("\\", r"\\"), text)
    return text


def plan(command: list[str]) -> JobCommand:
    """Return the command as it will be run.

    `uv run` is run by this Python when everything it asks for is installed here, so that a machine without
    internet runs what it can; otherwise by uv, which may download.
    """
    if command[:2] != ["uv", "run"]:
        return JobCommand(command)
    wanted, rest = _options(command[2:])
    wanted += _declared(rest[0]) if rest else []
    missing = [text for text in wanted if not _is_installed(text)]
    if not missing:
        return JobCommand([sys.executable, *(rest[1:] if rest[:1] in (["python"], ["python3"]) else rest)])
    lacking = ", ".join(missing)
    if shutil.which("uv"):
        return JobCommand(command, (f"not installed here, so uv will fetch it: {lacking}",))
    return JobCommand([], (f"not installed here, and there is no uv to fetch it: {lacking}",))


def _options(words: list[str]) -> tuple[list[str], list[str]]:
    """Return the requirements among uv's own options, and what follows them."""
    wanted: list[str] = []
    position = 0
    while position < len(words) and words[position].startswith("-"):
        name, equals, value = words[position].partition("=")
        if name in _WITH_VALUE and not equals:
            position += 1
            value = words[position] if position < len(words) else ""
        if name in ("--with", "-w"):
            wanted += [part for part in value.split(",") if part]
        position += 1
    return wanted, words[position:]


def _declared(script: str) -> list[str]:
    """Return the dependencies that a script names in its own header."""
    try:
        header = _HEADER.search(Path(script).read_text(encoding="utf-8"))
        text = "\n".join(line[2:] for line in header[1].splitlines()) if header else ""
        names = tomllib.loads(text).get("dependencies", [])
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return []
    return [str(other) for other in names] if isinstance(names, list) else []


def _is_installed(text: str) -> bool:
    try:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate():
            return True
        return requirement.specifier.contains(version(requirement.name), prereleases=True)
    except (InvalidRequirement, PackageNotFoundError):
        return False


@dataclass(frozen=True)
class Volume:
    """A repository or bucket that a job finds as a folder."""

    kind: str
    source: str
    mount: str
    revision: str | None = None
    path: str | None = None
    read_only: bool = False


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
        files = {path: blobs.find(connection, sha256) for path, sha256 in _contents(connection, caller, volume).items()}
    folder.mkdir(parents=True)
    for path, blob in files.items():
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
