"""Rules for names of repositories, references and files, so that no path leaves its folder."""

import re
import unicodedata

from medllm.localhub.errors import bad_request
from medllm.localhub.limits import ServerLimits

_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_DRIVE = re.compile(r"[A-Za-z]:")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REF_FORBIDDEN = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//")
_RESERVED = frozenset(
    {"api", "datasets", "spaces", "models", "buckets", "cas", "lfs", "jobs", "settings", "repo", "docs"}
)

KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}
"""The plural in URLs, the singular in bodies."""


def check_name(name: object, what: str) -> str:
    """Check the name of a user, organisation, repository or bucket; a refusal lists the allowed characters."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or ".." in name or "--" in name:
        raise bad_request(
            f"{what} must be 1-96 letters, digits, '.', '_' or '-' and neither start nor end with '.' or '-'"
        )
    if name.lower().endswith((".git", ".ipynb")):
        raise bad_request(f"{what} must not end in .git or .ipynb")
    return name


def check_namespace(name: object) -> str:
    """A namespace also must not shadow a part of the hub's own URLs."""
    checked = check_name(name, "A namespace")
    if checked.lower() in _RESERVED:
        raise bad_request(f"The namespace {checked!r} is reserved")
    return checked


def check_reference(name: object) -> str:
    """Check the short name of a branch or tag by git's rules for references."""
    bad = (
        not isinstance(name, str)
        or not 0 < len(name.encode("utf-8", "replace")) <= 200
        or _REF_FORBIDDEN.search(name)
        or name.startswith(("/", "-", "refs/"))
        or name.endswith(("/", "."))
        or any(part.startswith(".") or part.endswith(".lock") for part in name.split("/"))
    )
    if bad or not isinstance(name, str) or name == "@" or not name.isprintable():
        raise bad_request("A branch or tag name must follow git's rules for references")
    return name


def check_path(path: object, limits: ServerLimits) -> str:
    """A file's path in a repository: relative, without tricks, and short enough for any client's disk.

    >>> check_path("data/試験.jsonl", ServerLimits())
    'data/試験.jsonl'
    """
    if not isinstance(path, str) or not path:
        raise bad_request("A path must be text")
    try:
        size = len(path.encode("utf-8"))
    except UnicodeEncodeError:
        raise bad_request("A path must be valid Unicode") from None
    parts = path.split("/")
    if size > limits.path_bytes or len(parts) > limits.path_depth:
        raise bad_request(f"A path may have {limits.path_bytes} bytes and {limits.path_depth} levels")
    for part in parts:
        if fault := _fault(part, limits):
            raise bad_request(f"The path {path[:200]!r} {fault}")
    if len(parts) > 1 and _DRIVE.fullmatch(parts[0]):
        raise bad_request(f"The path {path[:200]!r} starts like a drive letter")
    return path


def _fault(part: str, limits: ServerLimits) -> str | None:
    """The reason why a path may not contain this name, or None; what some file system reads as `..` counts as `..`."""
    if not part:
        return "is absolute or has an empty name in it"
    if len(part.encode("utf-8")) > limits.name_bytes:
        return f"has a name longer than {limits.name_bytes} bytes"
    if any(unicodedata.category(sign) in ("Cc", "Cs") for sign in part) or "\\" in part:
        return "has a control character or a backslash in it"
    seen = "".join(sign for sign in unicodedata.normalize("NFKC", part) if unicodedata.category(sign) != "Cf")
    folded = seen.casefold().rstrip(". ")
    if folded in ("", ".git") or folded.startswith("git~"):
        return "has a name in it that leads out of the tree or into .git"
    return None


def same_name(name: str) -> str:
    """Two names with the same value here are one name on a file system that normalises Unicode."""
    return unicodedata.normalize("NFC", name)


def check_sha256(text: object) -> str:
    """A sha256 in lower-case hexadecimal."""
    if not isinstance(text, str) or not _SHA256.fullmatch(text):
        raise bad_request("An object id must be a sha256 in lower-case hexadecimal")
    return text
