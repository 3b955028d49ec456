"""What a request may contain, and each refusal: our code and sentence, an HTTP status, the code clients branch on."""

import re
import unicodedata
from dataclasses import dataclass

from medllm.errors import HubError


class HubRefusal(HubError):
    """A refused request with its HTTP status.

    The text becomes `X-Error-Message` and `error_code` becomes `X-Error-Code`, which clients map to their own
    exceptions; both are part of the protocol.
    """

    def __init__(self, code: str, text: str, *, status: int, error_code: str = "Error") -> None:
        super().__init__(code, text)
        self.status = status
        self.error_code = error_code


def bad_request(message: str) -> HubRefusal:
    """Return the refusal of a malformed request (400); sending it again does not help."""
    return HubRefusal("server.bad-request", message, status=400, error_code="BadRequest")


def no_repo(*, anonymous: bool) -> HubRefusal:
    """Return the same refusal for missing and private repositories, so that names cannot be probed."""
    return HubRefusal(
        "server.no-such-repository", "Repository not found", status=401 if anonymous else 404, error_code="RepoNotFound"
    )


def no_revision(name: str) -> HubRefusal:
    """Return the refusal of a revision (404): the repository has no branch, tag or commit of that name."""
    return HubRefusal(
        "server.no-such-revision", f"Invalid rev id: {name[:100]}", status=404, error_code="RevisionNotFound"
    )


def no_entry(path: str) -> HubRefusal:
    """Return the refusal of a path (404): the revision has no file or folder there."""
    return HubRefusal("server.no-such-entry", f"Entry not found: {path[:200]}", status=404, error_code="EntryNotFound")


def forbidden(message: str) -> HubRefusal:
    """Return the refusal of a known caller without the permission (403)."""
    return HubRefusal("server.forbidden", message, status=403, error_code="Forbidden")


def unauthorized(message: str) -> HubRefusal:
    """Return the refusal of an unknown caller where a token is needed (401)."""
    return HubRefusal("server.no-valid-token", message, status=401, error_code="Unauthorized")


def too_large(what: str, bound: int) -> HubRefusal:
    """Return the refusal of a request above a limit of the hub (413); the message gives the limit."""
    return HubRefusal(
        "server.too-large",
        f"{what} is larger than this hub takes ({bound} is the bound)",
        status=413,
        error_code="TooLarge",
    )


def disk_full() -> HubRefusal:
    """Return the refusal for a full disk of the store (507); nothing of the request is kept."""
    return HubRefusal(
        "server.disk-full",
        "The hub's disk is full: nothing of this request was kept. Free space and retry.",
        status=507,
        error_code="DiskFull",
    )


KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


@dataclass(frozen=True)
class ServerLimits:
    """Bounds that keep the server's memory flat and its answers quick."""

    json_body: int = 8 * MIB
    """Bytes of a JSON or form body, which is held in memory."""
    commit_body: int = 512 * MIB
    """Bytes of a commit; clients send at most 100 MiB of regular files, as base64."""
    commit_line: int = 32 * MIB
    """Bytes of one line of a commit, which is held in memory."""
    commit_files: int = 25_000
    """Operations in one commit."""
    regular_file: int = 10 * MIB
    """Files above this are asked for as large files, outside the commit."""
    lfs_file: int = 500 * GIB
    """Bytes of one large file."""
    lfs_part: int = 256 * MIB
    """Bytes of one part when a large file is sent in parts."""
    lfs_parted_above: int = 1 * GIB
    """Large files above this are taken in parts from clients that can."""
    anonymous_body: int = 256 * KIB
    """Bytes of a body from a sender without a token, who may only ask about paths and cards."""
    header_bytes: int = 64 * KIB
    """Bytes of the address and the headers of one request."""
    header_seconds: float = 20.0
    """How long a sender may take for the headers of one request."""
    connections: int = 512
    """Connections at once; one more closes the oldest that has not finished its headers."""
    slowest: int = 1 * KIB
    """Bytes a second that a body must reach on the whole once `idle_seconds` are over."""
    xorb: int = 72 * MIB
    """Bytes of one xorb; the format promises at most 64 MiB."""
    xorb_unpacked: int = 160 * MIB
    """Bytes of one xorb once unpacked: a bound against compression bombs."""
    xorb_chunks: int = 65_536
    """Chunks in one xorb; the format promises at most 8,192."""
    xet_repeats: int = 64
    """How often a file may repeat, on the whole, the content that was sent for it over xet."""
    xet_repeats_above: int = 1 * GIB
    """Bytes up to which a file may repeat its content without bound."""
    xet_pieces: int = 100_000
    """Runs of bytes of which one file may be made."""
    shard: int = 64 * MIB
    """Bytes of one xet shard."""
    path_bytes: int = 1024
    """Bytes of a file's path in a repository."""
    name_bytes: int = 255
    """Bytes of one name on that path: what common file systems take."""
    path_depth: int = 64
    """Folders on a path."""
    idle_seconds: float = 120.0
    """How long a sender may stay silent in the middle of a body."""
    free_bytes: int = 64 * MIB
    """Disk space that uploads leave free, so that the metadata can still be written."""
    job_log_lines: int = 100_000
    """Lines of a job's log that are kept."""
    page: int = 1000
    """Entries in one page of a listing."""


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


_WORDS = """
afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0
bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5
cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0
cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0 etalab-2.0
eupl-1.1 eupl-1.2 fair-noncommercial-research-license gemma gfdl gpl gpl-2.0 gpl-3.0 grok2-community h-research
intel-research isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 lppl-1.3c mit
mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openmdw-1.0 openrail openrail++ osl-3.0 other pddl postgresql unknown
unlicense wtfpl zlib
"""
HUB_LICENSES = frozenset(_WORDS.split())
"""As the Hub's documentation lists them ("Licenses", hub-docs) with those added since."""


def hub_word(written: object) -> str:
    """Map a written licence to the Hub's identifier; `other` where the Hub has none, or where there are several.

    >>> hub_word("Apache-2.0"), hub_word("qwen"), hub_word(["mit"]), hub_word("mit, cc-by-4.0"), hub_word(None)
    ('apache-2.0', 'other', 'mit', 'other', 'other')
    """
    several = written if isinstance(written, list | tuple) else [written]
    word = str(several[0]).strip().lower() if len(several) == 1 else ""
    return word if word in HUB_LICENSES else "other"


def license_name(written: object) -> str | None:
    """The `license_name` written beside `license: other`: lower case, without spaces; None when nothing is known.

    >>> license_name("Qwen LICENSE Agreement"), license_name(["mit", "cc-by-4.0"]), license_name("other")
    ('qwen-license-agreement', 'mit-cc-by-4.0', None)
    """
    several = written if isinstance(written, list | tuple) else [written]
    text = " ".join(str(name) for name in several if name)
    name = re.sub(r"[^\w.+]+", "-", text.lower()).strip("-")
    return name if name not in ("", "other", "unknown", "none") else None
