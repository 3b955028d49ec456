"""Single pages to text: plain text, Markdown and HTML, with the date and licence that a page states."""

import re
from dataclasses import dataclass
from datetime import date
from html.parser import HTMLParser

import yaml

from medllm.corpus.documents import UnreadableError

DEEPEST = 2000
"""Maximum number of nested tags; a page nested deeper is made to break readers."""

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
"""Maximum number of `<` before one is closed; scripts with many comparisons have some dozens."""
_FRONT = re.compile(r"\A---\s*\n(.*?)\n---\s*\n", re.S)


@dataclass(frozen=True)
class PageText:
    """The text of a page, with the date and licence that the page states."""

    text: str
    published: str | None = None
    license: str | None = None


def read_markdown(text: str) -> PageText:
    """Read the text below the front matter, and `date` and `license` from the front matter."""
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
    # A list that refers to itself many times is short in YAML and endless when written out.
    return str(value) if isinstance(value, str | int | float | date) else None


def read_html(text: str) -> PageText:
    """Extract the visible text of the page: no menus, scripts or readings above kanji."""
    # The parser searches again for the end of each open tag: with very many, that takes hours.
    if any(stretch.count("<") > OPEN for stretch in text.split(">")):
        raise UnreadableError("corpus.broken-html", f"more than {OPEN} tags begin before one ends. Check the page.")
    parser = _Reader()
    try:
        parser.feed(text)
        parser.close()
    except AssertionError as fault:  # Python's parser raises it for some marked sections
        raise UnreadableError("corpus.broken-html", f"the page is broken ({fault}). Save it again.") from None
    body = re.sub(r"[ \t\r\f]*\n\s*", "\n", "".join(parser.parts)).strip()
    return PageText(body, parser.published, parser.license)


class _Reader(HTMLParser):
    """Reader that goes from front to back without recursion, so depth costs nothing up to the limit."""

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
            raise UnreadableError(
                "corpus.nested-too-deeply", f"more than {DEEPEST:,} tags are open at once. Save the page as text."
            )

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
