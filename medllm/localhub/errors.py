"""Refusals of the hub: an HTTP status, a sentence, and the error code that clients branch on."""

from medllm.errors import HubError


class HubRefusal(HubError):
    """A refused request; `error_code` becomes `X-Error-Code`, which clients map to their own exceptions."""

    def __init__(self, status: int, message: str, error_code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.error_code = error_code


def bad_request(message: str) -> HubRefusal:
    """Return the refusal of a malformed request (400); sending it again does not help."""
    return HubRefusal(400, message, "BadRequest")


def no_repo(*, anonymous: bool) -> HubRefusal:
    """Return the same refusal for missing and private repositories, so that names cannot be probed."""
    return HubRefusal(401 if anonymous else 404, "Repository not found", "RepoNotFound")


def no_revision(name: str) -> HubRefusal:
    """Return the refusal of a revision (404): the repository has no branch, tag or commit of that name."""
    return HubRefusal(404, f"Invalid rev id: {name[:100]}", "RevisionNotFound")


def no_entry(path: str) -> HubRefusal:
    """Return the refusal of a path (404): the revision has no file or folder there."""
    return HubRefusal(404, f"Entry not found: {path[:200]}", "EntryNotFound")


def forbidden(message: str) -> HubRefusal:
    """Return the refusal of a known caller without the permission (403)."""
    return HubRefusal(403, message, "Forbidden")


def unauthorized(message: str) -> HubRefusal:
    """Return the refusal of an unknown caller where a token is needed (401)."""
    return HubRefusal(401, message, "Unauthorized")


def too_large(what: str, bound: int) -> HubRefusal:
    """Return the refusal of a request above a limit of the hub (413); the message gives the limit."""
    return HubRefusal(413, f"{what} is larger than this hub takes ({bound} is the bound)", "TooLarge")


def disk_full() -> HubRefusal:
    """Return the refusal for a full disk of the store (507); nothing of the request is kept."""
    return HubRefusal(
        507, "The hub's disk is full: nothing of this request was kept. Free space and retry.", "DiskFull"
    )
