"""Renders cards and facts as safe HTML: no raw HTML, no script, no foreign image."""

from collections.abc import Mapping
from functools import cache
from typing import Any
from urllib.parse import quote, urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup
from starlette.responses import HTMLResponse, Response

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
