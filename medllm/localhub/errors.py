"""What the hub answers when it says no: a status, a sentence, and the code that clients branch on."""

from medllm.errors import HubError


class Refusal(HubError):
    """A request that is turned down; `code` becomes `X-Error-Code`, which clients map to their own exceptions."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code


def bad_request(message: str) -> Refusal:
    """The request itself is malformed; sending it again will not help."""
    return Refusal(400, message, "BadRequest")


def no_repo(*, anonymous: bool) -> Refusal:
    """Missing and private look the same, so that nobody can probe for names."""
    return Refusal(401 if anonymous else 404, "Repository not found", "RepoNotFound")


def no_revision(name: str) -> Refusal:
    """The repository has no branch, tag or commit of that name."""
    return Refusal(404, f"Invalid rev id: {name[:100]}", "RevisionNotFound")


def no_entry(path: str) -> Refusal:
    """The revision has no file or folder at that path."""
    return Refusal(404, f"Entry not found: {path[:200]}", "EntryNotFound")


def forbidden(message: str) -> Refusal:
    """The caller is known, but may not do this."""
    return Refusal(403, message, "Forbidden")


def unauthorized(message: str) -> Refusal:
    """The caller is unknown, and this needs a token."""
    return Refusal(401, message, "Unauthorized")


def too_large(what: str, bound: int) -> Refusal:
    """A limit of the hub was passed; the bound is named so that the caller can stay below it."""
    return Refusal(413, f"{what} is larger than this hub takes ({bound} is the bound)", "TooLarge")


def disk_full() -> Refusal:
    """The store's disk has no room; nothing of the request was kept."""
    return Refusal(507, "The hub's disk is full: nothing of this request was kept. Free space and retry.", "DiskFull")
