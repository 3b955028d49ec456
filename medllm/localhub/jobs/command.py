"""Prepares a job for this machine: `uv run` without a download, volumes as folders, a clean environment."""

import os
import re
import shutil
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

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
            wanted += [one for one in value.split(",") if one]
        position += 1
    return wanted, words[position:]


def _declared(script: str) -> list[str]:
    """Return the dependencies that a script names in its own header."""
    try:
        header = _HEADER.search(Path(script).read_text(encoding="utf-8"))
        text = "\n".join(line[2:] for line in header[1].splitlines()) if header else ""
        found = tomllib.loads(text).get("dependencies", [])
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return []
    return [str(one) for one in found] if isinstance(found, list) else []


def _is_installed(text: str) -> bool:
    try:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate():
            return True
        return requirement.specifier.contains(version(requirement.name), prereleases=True)
    except (InvalidRequirement, PackageNotFoundError):
        return False
