"""The permissions of a token, as far as the Hub reports them: checked before a stage is made, not after days."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from medllm.errors import HubError

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
        missing = [one for one in repositories or (namespace,) if not self._may(WRITE, namespace, one)]
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
