"""Refusals of the hub: an HTTP status, a sentence, and the error code that clients branch on."""

from medllm.errors import HubError


class HubRefusal(HubError):
    """A refused request; `code` becomes `X-Error-Code`, which clients map to their own exceptions."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code


def bad_request(message: str) -> HubRefusal:
    """The request itself is malformed; sending it again will not help."""
    return HubRefusal(400, message, "BadRequest")


def no_repo(*, anonymous: bool) -> HubRefusal:
    """Give missing and private repositories the same answer, so that names cannot be probed."""
    return HubRefusal(401 if anonymous else 404, "Repository not found", "RepoNotFound")


def no_revision(name: str) -> HubRefusal:
    """The repository has no branch, tag or commit of that name."""
    return HubRefusal(404, f"Invalid rev id: {name[:100]}", "RevisionNotFound")


def no_entry(path: str) -> HubRefusal:
    """The revision has no file or folder at that path."""
    return HubRefusal(404, f"Entry not found: {path[:200]}", "EntryNotFound")


def forbidden(message: str) -> HubRefusal:
    """The caller is known, but may not do this."""
    return HubRefusal(403, message, "Forbidden")


def unauthorized(message: str) -> HubRefusal:
    """The caller is unknown, and this needs a token."""
    return HubRefusal(401, message, "Unauthorized")


def too_large(what: str, bound: int) -> HubRefusal:
    """The request exceeds a limit of the hub; the message gives the limit."""
    return HubRefusal(413, f"{what} is larger than this hub takes ({bound} is the bound)", "TooLarge")


def disk_full() -> HubRefusal:
    """The store's disk has no room; nothing of the request was kept."""
    return HubRefusal(
        507, "The hub's disk is full: nothing of this request was kept. Free space and retry.", "DiskFull"
    )
