"""Routes of the pages for people: repositories, cards, files, commits and tags as plain HTML without script."""

import sqlite3
from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources
from itertools import islice
from typing import Any
from urllib.parse import quote, urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup
from starlette.responses import HTMLResponse, RedirectResponse, Response

from medllm.localhub.store import commits, refs, repos, trees
from medllm.localhub.store.repos import Repo
from medllm.localhub.validation import KINDS, HubRefusal, no_entry, unauthorized
from medllm.localhub.web.metadata import card, tags
from medllm.localhub.web.request import Call, Routes

_SAFE = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def path(text: str) -> str:
    """A path as part of an address."""
    return quote(text, safe="/")


def part(text: str) -> str:
    """One part of an address, in which a slash is no separator: a branch called dev/x."""
    return quote(text, safe="")


def moment(text: str) -> str:
    """Format a time for readers.

    >>> moment("2026-11-20T07:30:01.123Z")
    '2026-11-20 07:30 UTC'
    """
    return f"{text[:10]} {text[11:16]} UTC"


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("medllm.localhub", "page"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    made.filters |= {"path": path, "part": part, "moment": moment}
    return made


def page(name: str, facts: Mapping[str, Any], status: int = 200) -> Response:
    """A page of the hub."""
    text = _environment().get_template(name).render(**facts)
    return HTMLResponse(text, status, headers=page_headers())


def page_headers() -> dict[str, str]:
    """Return the headers that keep a page from running or loading foreign content."""
    return {
        "Content-Security-Policy": _SAFE,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "private, no-cache",
    }


def card_html(text: str, place: str) -> Markup:
    """A card's Markdown as HTML; links and images without an address of their own lead to the files of `place`.

    HTML in the card is shown as plain text.

    >>> str(card_html("# Hi <script>x</script>", "/a/b")).strip()
    '<h1>Hi &lt;script&gt;x&lt;/script&gt;</h1>'
    """
    reader = MarkdownIt("js-default", {"html": False, "linkify": False, "typographer": False})
    tokens = reader.parse(text)
    for token in tokens:
        for inner in token.children or []:
            _relocate(inner, place)
    return Markup(reader.renderer.render(tokens, reader.options, {}))


def _relocate(token: Token, place: str) -> None:
    for name in ("href", "src"):
        address = token.attrGet(name)
        if not isinstance(address, str) or address.startswith(("#", "/")):
            continue
        if not urlsplit(address).scheme:
            token.attrSet(name, f"{place}/resolve/main/{address.removeprefix('./')}")
        elif name == "src" and not address.startswith("data:"):
            # A foreign image would reveal to its server who reads which card; the page's policy would block it anyway.
            token.attrSet(name, "data:,")
    if token.type == "link_open":
        token.attrSet("rel", "noopener noreferrer nofollow")


routes = Routes()

Show = Callable[[Call, sqlite3.Connection, Repo], Response]

_BOUND = 1000
_PAGE = 50


@routes.add("GET", "/")
def home(call: Call) -> Response:
    """List every repository the caller may see."""
    search = call.query.get("search", "")[:200]
    groups: dict[str, list[Repo]] = {f"{kind.capitalize()}s": [] for kind in KINDS.values()}
    with call.store.database.read() as connection:
        rows = connection.execute(
            "SELECT * FROM repos WHERE instr(lower(namespace || '/' || name), lower(?)) ORDER BY modified DESC",
            (search,),
        )
        visible = (
            repo for repo in map(repos.from_row, rows) if not repo.private or call.caller.belongs(repo.namespace)
        )
        shown = list(islice(visible, _BOUND + 1))
    for repo in shown[:_BOUND]:
        groups[f"{repo.kind.capitalize()}s"].append(repo)
    facts = {"groups": groups, "search": search, "more": len(shown) > _BOUND, "bound": _BOUND}
    return page("home.html", {"title": "The embedded Hub", "caller": call.caller, **facts})


@routes.add("GET", "/-/style.css")
def style(call: Call) -> Response:
    """Serve the style sheet of the pages."""
    text = resources.files("medllm.localhub.page").joinpath("style.css").read_bytes()
    return Response(text, media_type="text/css", headers=page_headers())


@routes.add("GET", "/-/sign-in")
def sign_in(call: Call) -> Response:
    """Make the browser ask for a token, then redirect to the list."""
    if call.caller.anonymous:
        raise unauthorized("Sign in with any name and a token as the password")
    return RedirectResponse("/", 303)


def _facts(call: Call, repo: Repo, revision: str) -> dict[str, object]:
    return {"title": repo.full, "caller": call.caller, "repo": repo, "revision": revision, "tags": []}


def _card(call: Call, connection: sqlite3.Connection, repo: Repo) -> Response:
    head = refs.resolve(connection, repo, "main")
    meta: dict[str, object] = {}
    text = closed = ""
    try:
        repos.open_gate(connection, call.caller, repo)
        meta, text = card(connection, call.store.files, commits.tree_of(connection, repo, head))
    except HubRefusal as refusal:
        closed = str(refusal)
    marks = [
        (name, commit)
        for prefix in (refs.TAGS, refs.HEADS)
        for name, _, commit in refs.listing(connection, repo, prefix)
        if (prefix, name) != (refs.HEADS, "main")
    ]
    facts = _facts(call, repo, "main") | {"tags": tags(repo, meta), "head": head, "marks": marks, "closed": closed}
    return page("card.html", {**facts, "card": card_html(text, f"/{path(repo.url_path)}") if text.strip() else ""})


def _files(call: Call, connection: sqlite3.Connection, repo: Repo) -> Response:
    repos.open_gate(connection, call.caller, repo)
    revision, folder = call.args["revision"], call.args["path"].strip("/")
    root = commits.tree_of(connection, repo, refs.resolve(connection, repo, revision))
    node = trees.find(connection, root, folder)
    if node is None or not node.folder:
        raise no_entry(folder)
    place, prefix = f"/{path(repo.url_path)}", f"{folder}/" if folder else ""
    nodes = sorted(trees.load(connection, node.oid).items(), key=lambda item: (not item[1].folder, item[0]))
    entries = [
        (
            name,
            child,
            f"{place}/{'tree' if child.folder else 'resolve'}/{part(revision)}/{quote(prefix + name, safe='/')}",
        )
        for name, child in nodes[:_BOUND]
    ]
    facts = {"path": folder, "above": folder.rpartition("/")[0], "entries": entries, "total": len(nodes)}
    return page("files.html", _facts(call, repo, revision) | facts | {"more": len(nodes) > _BOUND, "bound": _BOUND})


def _commits(call: Call, connection: sqlite3.Connection, repo: Repo) -> Response:
    revision, start = call.args["revision"], call.page_number() * _PAGE
    rows = commits.history(connection, repo, refs.resolve(connection, repo, revision))
    shown = list(islice(rows, start, start + _PAGE + 1))
    facts = {"commits": shown[:_PAGE], "more": len(shown) > _PAGE, "next": call.page_number() + 1}
    return page("commits.html", _facts(call, repo, revision) | facts)


def _commit(call: Call, connection: sqlite3.Connection, repo: Repo) -> Response:
    repos.open_gate(connection, call.caller, repo)
    row = commits.get(connection, repo, refs.resolve(connection, repo, call.args["revision"]))
    after = trees.files(connection, row["tree"])
    before = trees.files(connection, commits.tree_of(connection, repo, row["parent"])) if row["parent"] else {}
    changes = [
        ("added" if commit not in before else "changed", commit)
        for commit in after
        if before.get(commit) != after[commit]
    ]
    changes += [("removed", commit) for commit in before if commit not in after]
    facts = {"commit": row, "changes": changes[:_BOUND], "more": len(changes) > _BOUND, "bound": _BOUND}
    return page("commit.html", _facts(call, repo, "main") | facts)


def _pages_of(kind: str) -> None:
    area = f"/{'' if kind == 'model' else kind + 's/'}{{namespace}}/{{name}}"
    for suffix, show in (
        ("", _card),
        ("/tree/{revision}/{path...}", _files),
        ("/commits/{revision}", _commits),
        ("/commit/{revision}", _commit),
    ):

        def answer_page(call: Call, show: Show = show) -> Response:
            with call.store.database.read() as connection:
                return show(call, connection, repos.readable(connection, call.caller, kind, call.full))

        routes.add("GET", area + suffix)(answer_page)


for _kind in ("dataset", "space", "model"):
    _pages_of(_kind)
