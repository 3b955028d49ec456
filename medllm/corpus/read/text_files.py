"""Single pages to text: plain text, Markdown and HTML, with the date and licence that a page states of itself."""

import re
from dataclasses import dataclass
from datetime import date
from html.parser import HTMLParser

import yaml

from medllm.corpus.errors import UnreadableError

DEEPEST = 2000
"""Open tags at once; a page nested deeper was made to break readers."""

_BLOCKS = frozenset(
    (
        "address",
        "article",
        "blockquote",
        "br",
        "caption",
        "dd",
        "div",
        "dl",
        "dt",
        "figcaption",
        "figure",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "hr",
        "li",
        "main",
        "ol",
        "p",
        "pre",
        "section",
        "table",
        "td",
        "th",
        "title",
        "tr",
        "ul",
    )
)
_SILENT = frozenset(
    (
        "aside",
        "button",
        "footer",
        "form",
        "head",
        "header",
        "iframe",
        "nav",
        "noscript",
        "rp",
        "rt",
        "script",
        "select",
        "style",
        "svg",
    )
)
_EMPTY = frozenset(
    ("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr")
)
_DATES = frozenset(("article:published_time", "date", "dc.date", "dcterms.issued", "citation_publication_date"))
_LICENSES = frozenset(("dc.rights", "dcterms.license", "license", "licence"))
OPEN = 500
"""Tags that may be begun before one is ended; scripts that compare a lot have some dozens."""
_FRONT = re.compile(r"\A---\s*\n(.*?)\n---\s*\n", re.S)


@dataclass(frozen=True)
class PageText:
    """The text of a page and what it says of itself."""

    text: str
    published: str | None = None
    license: str | None = None


def read_markdown(text: str) -> PageText:
    """The text below the front matter; `date` and `license` in it count as the page's own words."""
    front = _FRONT.match(text)
    if front is None:
        return PageText(text)
    try:
        stated = yaml.safe_load(front[1])
    except (yaml.YAMLError, ValueError, RecursionError):
        return PageText(text)
    stated = stated if isinstance(stated, dict) else {}
    published, license = stated.get("published", stated.get("date")), stated.get("license", stated.get("licence"))
    return PageText(text[front.end() :], _word(published), _word(license))


def _word(value: object) -> str | None:
    # A list that names itself many times over is short in YAML and endless when written out.
    return str(value) if isinstance(value, str | int | float | date) else None


def read_html(text: str) -> PageText:
    """What a reader of the page would read: no menus, scripts or the readings set above kanji."""
    # The parser looks for the end of each open tag anew: of very many, it would look for hours.
    if any(stretch.count("<") > OPEN for stretch in text.split(">")):
        raise UnreadableError(f"broken_html: more than {OPEN} tags are begun before one is ended.")
    parser = _Reader()
    try:
        parser.feed(text)
        parser.close()
    except AssertionError as fault:  # what Python's parser raises over some marked sections
        raise UnreadableError(f"broken_html: {fault}") from None
    body = re.sub(r"[ \t\r\f]*\n\s*", "\n", "".join(parser.parts)).strip()
    return PageText(body, parser.published, parser.license)


class _Reader(HTMLParser):
    """Reads from front to back without recursion, so depth costs nothing until it is refused."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.published: str | None = None
        self.license: str | None = None
        self._open: list[str] = []
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._state(tag, {name: value or "" for name, value in attrs})
        if tag in _BLOCKS:
            self.parts.append("\n")
        if tag in _EMPTY:
            return
        self._open.append(tag)
        self._silent += tag in _SILENT
        if len(self._open) > DEEPEST:
            raise UnreadableError(f"nested_too_deeply: more than {DEEPEST:,} tags stand open at once.")

    def handle_endtag(self, tag: str) -> None:
        if tag in _BLOCKS:
            self.parts.append("\n")
        # A closing tag closes what was left open inside it; one that was never opened closes nothing.
        if tag in self._open:
            while True:
                closed = self._open.pop()
                self._silent -= closed in _SILENT
                if closed == tag:
                    break

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.parts.append(data)

    def _state(self, tag: str, attrs: dict[str, str]) -> None:
        name = (attrs.get("property") or attrs.get("name") or "").lower()
        if tag == "meta" and name in _DATES:
            self.published = self.published or attrs.get("content")
        if tag == "meta" and name in _LICENSES:
            self.license = self.license or attrs.get("content")
        if tag in ("a", "link") and "license" in attrs.get("rel", "").lower().split():
            self.license = self.license or attrs.get("href")
