"""The meaning and the remedy of each refusal of the Hub, and a token's permissions, checked before a stage is made."""

import errno
import time
import traceback
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx2
from huggingface_hub.errors import (
    BadRequestError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from medllm.errors import HubError

T = TypeVar("T")

PASSING = frozenset({408, 429, 500, 502, 503, 504})
"""HTTP status codes of temporary failures, which are retried."""

WAITS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Seconds between tries: about a minute in all, then the call fails and the next run resumes."""

LONGEST_WAIT = 300.0
"""Seconds: a Hub may ask for a longer pause by Retry-After; beyond this limit the run stops with an error."""


class MovedError(HubError):
    """Another user's commit came first: the Hub refused ours as a whole and kept nothing of it."""


def with_retries(
    place: str, call: Callable[[], T], waits: tuple[float, ...] = WAITS, say: Callable[[str], None] = lambda text: None
) -> T:
    """Make one call to the Hub: retry and report temporary failures, translate permanent ones into errors."""
    for wait in (*waits, None):
        try:
            return call()
        except Exception as fault:
            if wait is None or not _passes(fault):
                message = to_hub_error(place, fault)
                _forget_headers(fault)
                if message is None:
                    raise
                raise message from fault
            pause = min(max(wait, _asked_for(fault)), LONGEST_WAIT)
            say(f"{place}: {_passing(fault)}; trying again in {pause:.0f} s")
            time.sleep(pause)
    raise AssertionError("the last try returns or raises")


def _passes(fault: Exception) -> bool:
    if isinstance(fault, HfHubHTTPError):
        return fault.response.status_code in PASSING and _asked_for(fault) <= LONGEST_WAIT
    if isinstance(fault, httpx2.TransportError):
        return True
    # The xet client is written in Rust and has one exception for all network failures.
    return isinstance(fault, (ConnectionError, TimeoutError)) and not isinstance(fault, OfflineModeIsEnabled)


def _passing(fault: Exception) -> str:
    """Describe a temporary failure in a few words."""
    if isinstance(fault, HfHubHTTPError):
        status = fault.response.status_code
        return "the Hub asks for fewer requests" if status == 429 else f"the Hub answers {status}"
    return f"the Hub does not answer ({type(fault).__name__})"


def unreachable_error(endpoint: str, fault: Exception) -> HubError | None:
    """Return our error if no server listens at an address; None if one does."""
    if not isinstance(fault, httpx2.ConnectError):
        return None
    return HubError(
        "hub.no-server",
        f"{endpoint}: no server answers there ({fault}), so nothing was done. Check the address (--hub, HF_ENDPOINT) "
        "and the network; start your own Hub with `medllm hub serve`; behind a proxy, set NO_PROXY for it.",
    )


def _asked_for(fault: Exception) -> float:
    message = fault.response.headers.get("retry-after", "") if isinstance(fault, HfHubHTTPError) else ""
    return float(message) if message.isdecimal() else 0.0


def _forget_headers(fault: Exception) -> None:
    """Remove what holds the token from every cause: requests, and the variables that a traceback could show."""
    below: BaseException | None = fault
    while below is not None:
        for name in ("request", "_request", "response"):
            vars(below).pop(name, None)
        traceback.clear_frames(below.__traceback__)
        below = below.__cause__ or below.__context__


def to_hub_error(place: str, fault: Exception) -> HubError | None:
    """Return our error for a foreseen refusal; None for any other fault, which keeps its traceback."""
    if isinstance(fault, HfHubHTTPError):
        return _refusal(place, fault)
    if isinstance(fault, LocalTokenNotFoundError):
        return HubError("hub.no-token", f"{place}: there is no token. Run `hf auth login`, or set HF_TOKEN.")
    if isinstance(fault, HFValidationError):
        return HubError("hub.bad-name", f"{place}: a repository cannot have this name ({fault}). Write ORG/NAME.")
    if isinstance(fault, OfflineModeIsEnabled):
        return HubError(
            "hub.offline",
            f"{place}: HF_HUB_OFFLINE is set, which also blocks a Hub on this machine. Unset it; with a local Hub "
            "(--hub DIR) nothing leaves the machine.",
        )
    if isinstance(fault, OSError) and fault.errno == errno.ENOSPC:
        return HubError(
            "stage.disk-full", f"{place}: the disk is full. Free some space and run the same command again to continue."
        )
    if isinstance(fault, (LocalEntryNotFoundError, httpx2.HTTPError, ConnectionError, TimeoutError)):
        return HubError(
            "hub.unreachable",
            f"{place}: the Hub is out of reach ({type(fault).__name__}). Nothing is lost: when it answers again, run "
            "the same command to continue. Behind a proxy, set NO_PROXY for your own Hub.",
        )
    return None


def _refusal(place: str, fault: HfHubHTTPError) -> HubError:
    status = fault.response.status_code
    message = (fault.server_message or "").strip().replace("\n", " ")
    reason = f" (its message: {message})" if message else ""
    if status == 412:
        return MovedError(
            "hub.moved",
            f"{place}: another commit came first; nothing was overwritten. Run again to see what is left to do.",
        )
    if isinstance(fault, GatedRepoError):
        return HubError(
            "hub.gated", f"{place}: access is by request. Ask for it on the repository's page, then run again."
        )
    if isinstance(fault, RevisionNotFoundError):
        return HubError(
            "hub.no-such-revision",
            f"{place}: there is no such revision. Look up the repository's tags and commits and correct the part after "
            "the @.",
        )
    if isinstance(fault, RemoteEntryNotFoundError):
        return HubError("hub.no-such-file", f"{place}: there is no such file. Look up the repository's files.")
    if status == 401 and "redentials" in message:
        return HubError(
            "hub.unknown-token",
            f"{place}: the Hub does not know this token. Run `hf auth login`, or set HF_TOKEN again.",
        )
    if isinstance(fault, RepositoryNotFoundError):
        return HubError(
            "hub.no-such-repository",
            f"{place}: there is no such repository, or this token may not see it. Correct the name or the token.",
        )
    if status == 401:
        return HubError(
            "hub.unknown-token",
            f"{place}: the token is missing, or the Hub does not know it{reason}. Run `hf auth login`, or set "
            "HF_TOKEN.",
        )
    if status == 403:
        return HubError(
            "hub.forbidden",
            f"{place}: this token may not do that{reason}. If no other reason is given, use a token with the role "
            "`write` for that namespace, or set the recipe's namespace to your own (--set namespace=NAME).",
        )
    if status in (413, 507):
        return HubError("hub.full", f"{place}: the Hub is full{reason}. Free some space there and run again.")
    if status == 429:
        return HubError(
            "hub.too-many-requests",
            f"{place}: the Hub asks for fewer requests{reason}. Run the same command later to continue.",
        )
    if isinstance(fault, BadRequestError) or status in (400, 409, 422):
        return HubError(
            "hub.bad-request",
            f"{place}: the Hub refuses the request as wrong ({status}){reason}. Mend what it names, or report a bug.",
        )
    return HubError(
        "hub.server-error", f"{place}: the Hub answered {status}{reason}. Run the same command later to continue."
    )


WRITE = "repo.write"
"""The Hub's name for the right to make and fill repositories, in a fine-grained token."""

JOBS = "job.write"
"""The Hub's name for the right to start Jobs."""


@dataclass(frozen=True)
class Account:
    """The owner of a token, the namespaces the owner may push to, and the rights of the token itself."""

    name: str
    organizations: Mapping[str, str | None]
    """The owner's organizations and their role in each; None where the Hub does not report them."""
    role: str | None
    """The role of the token: `read`, `write`, or `fineGrained`, whose rights are in `granted`."""
    granted: Mapping[str, frozenset[str]] | None = None
    """Rights of a fine-grained token by namespace or repository; None for other tokens, or when not reported."""

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Return the namespaces that the owner may push to."""
        return (self.name, *(name for name, role in self.organizations.items() if role != "read"))

    def check(self, hub: str, namespace: str, repositories: Collection[str] = ()) -> None:
        """Raise HubError if the token cannot push these repositories to this namespace."""
        if self.role == "read":
            raise HubError(
                "hub.read-only-token",
                f"{hub}: the token of {self.name} may only read. Make one with the role `write`.",
            )
        if namespace.lower() not in {own.lower() for own in self.namespaces}:
            only_reads = namespace.lower() in {own.lower() for own in self.organizations}
            why = " (it may only read there)" if only_reads else ""
            raise HubError(
                "hub.foreign-namespace",
                f"namespace: {self.name} may not push to `{namespace}`{why}. Set it to one of: "
                f"{', '.join(self.namespaces)} (--set namespace={self.name}).",
            )
        missing = [
            repository for repository in repositories or (namespace,) if not self._may(WRITE, namespace, repository)
        ]
        if missing:
            raise HubError(
                "hub.token-without-write",
                f"{hub}: the token of {self.name} is fine-grained and may not write to {', '.join(missing)}. Give it "
                f'"Write access to contents/settings of all repos" under {namespace}, or use one with the role '
                "`write`.",
            )

    def check_jobs(self, hub: str, namespace: str) -> None:
        """Raise HubError if the token can push there but not start a Job."""
        if not self._may(JOBS, namespace):
            raise HubError(
                "hub.token-without-jobs",
                f"{hub}: the token of {self.name} is fine-grained and may not start Jobs (`{JOBS}`) in {namespace}. "
                f"Give it that right under {namespace}, use one with the role `write`, or leave out --on jobs.",
            )

    def _may(self, right: str, *places: str) -> bool:
        if self.role != "fineGrained" or self.granted is None:
            return True
        return any(right in self.granted.get(name.lower(), ()) for name in places)


def account_of(identity: Mapping[str, Any]) -> Account:
    """Parse a Hub's answer about the token; a field that is missing or of another shape counts as not reported."""
    organizations = {org["name"]: org.get("roleInOrg") for org in identity.get("orgs") or ()}
    token = (identity.get("auth") or {}).get("accessToken") or {}
    scopes = (token.get("fineGrained") or {}).get("scoped")
    granted: dict[str, frozenset[str]] = {}
    for scope in scopes or ():
        name = str((scope.get("entity") or {}).get("name", "")).lower()
        granted[name] = granted.get(name, frozenset()) | frozenset(scope.get("permissions") or ())
    return Account(identity["name"], organizations, token.get("role"), None if scopes is None else granted)
