"""A model's reply as HTML for reading: Markdown rendered, thinking folded with its length; hostile text stays text."""

import functools
import re

from markdown_it import MarkdownIt
from markdown_it.token import Token

from medllm.exam.extract.reply import split_thinking
from medllm.page.html import LONGEST_CARD, both, safe, shortened

MOST_BARS = 3_000
"""Vertical bars of a text that is still rendered: a table of hundreds of columns is shown as it was written."""


@functools.cache
def _reader() -> MarkdownIt:
    """Return the renderer: no HTML, no links, no pictures; a heading is a paragraph, for the page has its own."""
    reader = MarkdownIt("commonmark", {"html": False, "breaks": True, "linkify": False, "maxNesting": 20})
    reader.enable(["table", "strikethrough"])
    reader.disable(["link", "image", "autolink", "html_inline", "html_block", "reference", "entity", "code"])
    reader.core.ruler.push("headings", lambda state: _flatten(state.tokens))
    return reader


def _flatten(tokens: list[Token]) -> None:
    """Turn headings into marked paragraphs, and tables into boxes that scroll by themselves."""
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = "p"
            if token.nesting > 0:
                token.attrSet("class", "heading")
        if token.type == "table_open":
            token.attrSet("class", "written")
            token.attrSet("tabindex", "0")


@functools.lru_cache(maxsize=1024)
def formatted(text: str) -> str:
    r"""Return Markdown as HTML that holds no address, no attribute of the author's, and nothing a template would run.

    A text that is too long, or a table with hundreds of columns, is returned as it was written.

    >>> formatted("## 解説\n**発熱** ${x} <b>")
    '<p class="heading">解説</p>\n<p><strong>発熱</strong> &#36;&#123;x&#125; &lt;b&gt;</p>\n'
    """
    if len(text) > LONGEST_CARD or text.count("|") > MOST_BARS:
        return f'<div class="raw">{shortened(text)}</div>'
    rendered: str = _reader().render(re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", "�", text))
    for letter in "${}`":
        rendered = rendered.replace(letter, f"&#{ord(letter)};")
    return rendered


def reply_html(text: str, reasoning: str = "") -> str:
    """Return a whole reply: the model's thinking folded, with its length, and then what it answered."""
    thinking, rest = split_thinking(text)
    folded = thinking_html(reasoning) + thinking_html(thinking)
    if rest is None or (reasoning.strip() and not rest.strip()):
        return f'{folded}<em class="quiet">{both("only_thinking")}</em>'
    body = formatted(rest.strip()) if rest.strip() else f'<em class="quiet">{both("empty_reply")}</em>'
    return f'{folded}<div class="formatted">{body}</div>'


def thinking_html(text: str) -> str:
    """Return what a model thought, folded, with its length; nothing where it thought nothing."""
    if not text.strip():
        return ""
    return (
        f'<details class="thinking"><summary>{both("thinking_of", n=f"{len(text):,}")}</summary>'
        f'<div class="raw">{shortened(text.strip())}</div></details>'
    )


def raw_link(source: str) -> str:
    """Return the fold that fetches a recorded reply exactly as it was written."""
    return (
        f'<details class="as-written" data-src="{safe(source)}"><summary>{both("as_written")}</summary>'
        f'<pre tabindex="0">{both("fetching")}</pre></details>'
    )
