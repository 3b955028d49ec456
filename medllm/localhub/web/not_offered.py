"""Routes of the Hub's features that this hub lacks: each answers 501 with the feature's name."""

from collections.abc import Callable

from starlette.responses import Response

from medllm.localhub.store import repos
from medllm.localhub.validation import HubRefusal
from medllm.localhub.web.request import Call, Routes

routes = Routes()

_REPO = "/api/{kinds}/{namespace}/{name}"
ABSENT: dict[str, tuple[str, ...]] = {
    "webhooks": ("/api/settings/webhooks", "/api/settings/webhooks/{rest...}"),
    "likes": (f"{_REPO}/like", f"{_REPO}/likers", "/api/users/{user}/likes"),
    "duplicating a repository": (f"{_REPO}/duplicate", f"{_REPO}/lfs-files/duplicate"),
    "comparing revisions": (f"{_REPO}/compare/{{rest...}}",),
    "sizes of folders": (f"{_REPO}/treesize/{{rest...}}",),
    "security scans": (f"{_REPO}/scan",),
    "discussions and pull requests": (f"{_REPO}/discussions", f"{_REPO}/discussions/{{rest...}}"),
    "leaderboards": ("/api/datasets/{namespace}/{name}/leaderboard",),
    "the dataset viewer and SQL": (
        "/api/datasets/{namespace}/{name}/parquet",
        "/api/datasets/{namespace}/{name}/parquet/{rest...}",
    ),
    "searching Spaces by meaning": ("/api/spaces/semantic-search",),
    "logs and metrics of Spaces": (
        "/api/spaces/{namespace}/{name}/logs/{rest...}",
        "/api/spaces/{namespace}/{name}/metrics",
        "/api/spaces/{namespace}/{name}/events",
    ),
    "papers": ("/api/papers", "/api/papers/{rest...}", "/api/daily_papers"),
    "profiles, followers and members": (
        "/api/users/{user}/overview",
        "/api/users/{user}/followers",
        "/api/users/{user}/following",
        "/api/organizations/{org}/overview",
        "/api/organizations/{org}/members",
        "/api/organizations/{org}/followers",
    ),
    "scheduled jobs": ("/api/scheduled-jobs", "/api/scheduled-jobs/{rest...}"),
    "notifications": ("/api/notifications", "/api/notifications/{rest...}"),
    "posts": ("/api/posts", "/api/posts/{rest...}"),
    "resource groups": (f"{_REPO}/resource-group", "/api/organizations/{org}/resource-groups"),
    "lists of known tags": ("/api/models-tags-by-type", "/api/datasets-tags-by-type"),
    "signing in through the browser (OAuth)": ("/oauth/{rest...}",),
    "git over HTTP": (
        "/{namespace}/{name}.git/info/refs",
        "/{namespace}/{name}.git/git-upload-pack",
        "/{namespace}/{name}.git/git-receive-pack",
        "/{kinds}/{namespace}/{name}.git/info/refs",
    ),
}
"""What is not offered, by its name, and the addresses at which clients ask for it."""


def _absent(what: str) -> Callable[[Call], Response]:
    def refuse(call: Call) -> Response:
        if "kinds" in call.args and "namespace" in call.args:
            with call.store.database.read() as connection:
                repos.readable(connection, call.caller, call.kind, call.full)
        raise HubRefusal(
            "server.not-offered", f"This hub does not offer this: {what}", status=501, error_code="NotOffered"
        )

    return refuse


for _what, _addresses in ABSENT.items():
    for _method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        routes.add(_method, *_addresses)(_absent(_what))
