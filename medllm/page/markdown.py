"""Replies as HTML: Markdown, formulas and thinking, rendered so that nothing that a model writes runs or links."""

import functools
import re
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from xml.etree import ElementTree

from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline
from markdown_it.rules_inline.state_inline import Scanned
from markdown_it.token import Token

from medllm.exam.extract.reply import split_thinking
from medllm.page.html import LONGEST_CARD, UNSEEN, both, safe, shortened

MOST_BARS = 3_000
"""Vertical bars of a text that is still rendered: a table of hundreds of columns is shown as it was written."""


_CJK = re.compile(
    r"[\u1100-\u11ff\u2e80-\u303f\u3041-\u33ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef"
    r"\U0001b000-\U0001b16f\U00020000-\U0003ffff]"
)
"""Characters of scripts without blanks between words, their punctuation and wide forms among them."""


class _Inline(StateInline):
    """Emphasis as Japanese is written.

    CommonMark closes no `**` between 」 and a letter, since it expects blanks between words: `**「発熱」**がある` would
    stay open and make the wrong words bold. Here punctuation of such scripts counts as a letter, and a letter of theirs
    before or after a mark as a blank.
    """

    def scanDelims(self, start: int, canSplitWord: bool) -> Scanned:
        """Return whether a run of marks may open and close emphasis."""
        end = start
        while end < self.posMax and self.src[end] == self.src[start]:
            end += 1
        before, after = self.src[start - 1 : start] or " ", self.src[end : end + 1] or " "
        opens = not after.isspace() and (not _is_mark(after) or _ends_word(before))
        closes = not before.isspace() and (not _is_mark(before) or _ends_word(after))
        if canSplitWord:
            return Scanned(opens, closes, end - start)
        return Scanned(
            opens and (not closes or _is_mark(before)), closes and (not opens or _is_mark(after)), end - start
        )


def _is_mark(letter: str) -> bool:
    """Return whether a character is punctuation of a script with blanks between words."""
    return unicodedata.category(letter)[0] in "PS" and not _CJK.match(letter)


def _ends_word(letter: str) -> bool:
    return letter.isspace() or _is_mark(letter) or _CJK.match(letter) is not None


@functools.cache
def _reader() -> MarkdownIt:
    """Return the renderer: no HTML, no links, no pictures; a heading is a paragraph, for the page has its own."""
    reader = MarkdownIt("commonmark", {"html": False, "breaks": True, "linkify": False, "maxNesting": 20})
    reader.enable(["table", "strikethrough"])
    reader.disable(["link", "image", "autolink", "html_inline", "html_block", "reference", "entity", "code"])
    reader.core.ruler.push("headings", lambda state: _flatten(state.tokens))
    with suppress(ImportError):  # of the extra `space`: without it formulas stay as they were written
        from mdit_py_plugins.dollarmath import dollarmath_plugin

        dollarmath_plugin(reader, allow_labels=False, allow_space=False, allow_digits=False, double_inline=True)
    reader.inline.ruler.before("escape", "brackets", _bracketed)
    for name in ("math_inline", "math_inline_double", "math_block"):
        reader.add_render_rule(name, _formula)
    reader.inline.parse = functools.partial(_read_inline, reader)  # type: ignore[method-assign]
    return reader


def _read_inline(reader: MarkdownIt, text: str, md: MarkdownIt, env: Any, tokens: list[Token]) -> list[Token]:  # noqa: ANN401
    """Read a line as markdown-it does, with emphasis as Japanese is written."""
    state = _Inline(text, md, env, tokens)
    reader.inline.tokenize(state)
    for rule in reader.inline.ruler2.getRules(""):
        rule(state)
    return state.tokens


def _bracketed(state: StateInline, silent: bool) -> bool:
    r"""Read a formula between \( and \), or \[ and \]."""
    begin = state.src[state.pos : state.pos + 2]
    ends = {"\\(": "\\)", "\\[": "\\]"}
    at = state.src.find(ends[begin], state.pos + 2) if begin in ends else -1
    if at < 0:
        return False
    if not silent:
        token = state.push("math_inline", "", 0)
        token.content, token.markup = state.src[state.pos + 2 : at], begin
    state.pos = at + 2
    return True


LONGEST_FORMULA = 1_000
"""Characters of a formula above which it is shown as it was written."""

DRAWN = frozenset(
    {
        "math", "mrow", "mi", "mn", "mo", "mtext", "mspace", "mfrac", "msqrt", "mroot", "msub", "msup", "msubsup",
        "munder", "mover", "munderover", "mtable", "mtr", "mtd", "mstyle", "mpadded", "mphantom", "mmultiscripts",
        "mprescripts", "none",
    }
)  # fmt: skip
"""The elements of MathML that a formula may become; none of them holds an address or runs anything."""

SHAPED = frozenset(
    {"stretchy", "fence", "form", "separator", "mathvariant", "columnalign", "displaystyle", "accent", "linethickness"}
)
"""Their attributes that are kept; those that set a size are not, for a formula could cover the page."""


def _formula(_: Any, tokens: Sequence[Token], at: int, options: Any, env: Any) -> str:  # noqa: ANN401  (markdown-it's)
    """Render a formula's token: MathML, or what was written where that is no LaTeX."""
    token = tokens[at]
    begin = token.markup
    end = {"\\(": "\\)", "\\[": "\\]"}.get(begin, begin)
    shown = mathml(token.content.strip()) or safe(begin + token.content + end)
    return f"<p>{shown}</p>" if token.type.startswith("math_block") else shown


@functools.lru_cache(maxsize=2048)
def mathml(latex: str) -> str | None:
    """Return a formula as MathML of known elements alone; None if it is too long, broken or beyond the library."""
    if len(latex) > LONGEST_FORMULA or "`" in latex:  # code between two dollars
        return None
    try:
        from latex2mathml.converter import convert

        return _drawn(ElementTree.fromstring(convert(UNSEEN.sub("�", latex))))
    except Exception:
        return None


def _drawn(part: ElementTree.Element) -> str:
    name = part.tag.rpartition("}")[2]
    if name not in DRAWN:
        raise ValueError(name)
    kept = "".join(f' {key}="{safe(value)}"' for key, value in part.attrib.items() if key in SHAPED)
    inner = "".join(_drawn(child) + safe(child.tail or "") for child in part)
    return f"<{name}{kept}>{safe(part.text or '')}{inner}</{name}>"


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
    rendered: str = _reader().render(UNSEEN.sub("�", text))
    for letter in "${}`":
        rendered = rendered.replace(letter, f"&#{ord(letter)};")
    return rendered


def has_form(text: str) -> bool:
    r"""Return whether a text reads otherwise when it is rendered: lists, tables, headings, formulas, thinking.

    >>> has_form("発熱。\\n肺炎。"), has_form("- 発熱\\n- 咳"), has_form("**肺炎**")
    (False, True, True)
    """
    plain = {"paragraph_open", "paragraph_close", "inline", "text", "softbreak", "hardbreak"}
    if len(text) > LONGEST_CARD or text.count("|") > MOST_BARS:
        return False
    thinking, rest = split_thinking(text)
    tokens = _reader().parse(rest or "")
    return bool(thinking) or any(
        part.type not in plain for token in tokens for part in (token, *(token.children or ()))
    )


MOST_THINKING = 1_000
"""Characters of a model's thinking above which they are sent only when a reader opens them."""


def reply_html(text: str, reasoning: str = "", source: str = "") -> str:
    """Return a whole reply: the model's thinking folded, with its length, and then what it answered.

    A long thinking of a recorded reply, whose address is `source`, is sent only when it is opened.
    """
    thinking, rest = split_thinking(text)
    length = len(reasoning) + len(thinking)
    if source and length > MOST_THINKING:
        head = both("thinking_of", n=f"{length:,}")
        folded = _fetched("thinking", f"{source}&part=thinking", head, "raw")
    else:
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
    return _fetched("as-written", source, both("as_written"), "")


def _fetched(kind: str, source: str, head: str, within: str) -> str:
    """Return a fold of which the text is fetched when it is opened."""
    return (
        f'<details class="{kind}" data-src="{safe(source)}"><summary>{head}</summary>'
        f'<pre tabindex="0" class="{within}">{both("fetching")}</pre></details>'
    )
