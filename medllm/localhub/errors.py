"""Refusals of the hub: our code and sentence, an HTTP status, and the error code that clients branch on."""

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
