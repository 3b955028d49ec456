"""The page as HTML: escaped text in two languages, the cards of questions and faults, and rendered replies."""

import functools
import html
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import resources
from typing import Any
from xml.etree import ElementTree

import yaml
from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

from medllm.errors import DataError
from medllm.exam.extract.reply import split_thinking
from medllm.exam.question import Question, write_answer

LANGUAGES = ("ja", "en")


@functools.cache
def words() -> dict[str, dict[str, str]]:
    """Return every sentence of the page, by key, in Japanese and English."""
    text = resources.files("medllm.page").joinpath("words.yaml").read_text(encoding="utf-8")
    table: dict[str, dict[str, str]] = yaml.safe_load(text)
    return table


def word(key: str, language: str, **values: object) -> str:
    """Return one sentence in one language, as text; `values` fill its braces."""
    return words()[key][language].format(**values)


UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters, and those that turn the direction of the text after them: they would hide or reorder words."""


def safe(text: object) -> str:
    """Return text as HTML that cannot become markup or a template, whatever its author wrote.

    Braces, dollars and backticks are escaped too: Gradio compiles a component's template as JavaScript, and a model
    may write `${alert(1)}`. Characters that would hide or reorder the words around them become �.

    >>> safe('<b>${x}</b> {{y}}')
    '&lt;b&gt;&#36;&#123;x&#125;&lt;/b&gt; &#123;&#123;y&#125;&#125;'
    """
    escaped = html.escape(UNSEEN.sub("�", str(text)), quote=True)
    for letter in "${}`":
        escaped = escaped.replace(letter, f"&#{ord(letter)};")
    return escaped


def both(key: str, **values: object) -> str:
    """Return a sentence in both languages; the stylesheet shows the chosen one, without a round trip."""
    return "".join(
        f'<span class="{language}" lang="{language}">{safe(word(key, language, **values))}</span>'
        for language in LANGUAGES
    )


def hidden(key: str, **values: object) -> str:
    """Return a sentence for screen readers only."""
    return f'<span class="sr">{both(key, **values)}</span>'


def percent(share: float, digits: int = 1) -> str:
    """Return a share as a percentage without its sign, or a dash where there is nothing to divide by.

    >>> percent(0.8254), percent(float("nan"))
    ('82.5', '–')
    """
    return "–" if share != share else f"{share * 100:.{digits}f}"


def signed(share: float, digits: int = 1) -> str:
    """Return a difference in points with its sign, as typeset: a true minus.

    >>> signed(-0.121), signed(0.018), signed(-0.0001)
    ('−12.1', '+1.8', '+0.0')
    """
    return "–" if share != share else f"{share * 100:+z.{digits}f}".replace("-", "−")


class ResultsError(DataError):
    """Results that cannot be shown; the code selects the sentences of words.yaml, the values fill them."""

    def __init__(self, code: str, **values: object) -> None:
        self.values = values
        cause, remedy = sentence_keys(code)
        super().__init__(code, f"{word(cause, 'en', **values)} {word(remedy, 'en', **values)}")


def sentence_keys(code: str) -> tuple[str, str]:
    """Return the keys in words.yaml of the cause and the remedy: `page.not-found` has `fault_not_found`."""
    key = "fault_" + code.removeprefix("page.").replace("-", "_")
    return key, f"{key}_mend"


def fault_panel(fault: Exception) -> str:
    """Return the panel that explains an error and its remedy."""
    if isinstance(fault, ResultsError):
        cause, remedy = (both(key, **fault.values) for key in sentence_keys(fault.code))
        body = f"<p>{cause}</p><p><b>{both('fault_mend')}</b>: {remedy}</p>"
    else:
        body = f'<p lang="en">{safe(fault)}</p>'
    return f'<section class="card panel" role="alert"><h2>{both("fault_title")}</h2>{body}</section>'


def notice(key: str, **values: object) -> str:
    """Return a short remark for the top of the page's content."""
    return f'<p class="card panel" role="status">{both(key, **values)}</p>'


RECALLED = 80
"""Characters of a question in the line that replaces its card."""

LONGEST_CARD = 20_000
"""Characters of a question shown at once; an exam item has hundreds, a broken file may have millions."""


def question_card(key: str, question: Question, picks: Mapping[str, str] | None = None, *, many: bool = False) -> str:
    """Return the card of one question; the id is its heading for a screen reader.

    `picks` holds for a choice's letter, as HTML, which models chose it. A card with picks is beside replies: it is
    folded where there is little room, has a line that calls it back, and lets a reader choose before anything is
    shown. With `many` models their names are folded, too.
    """
    tongue = question.language
    beside = picks is not None
    choices = "".join(
        f"<li>{_letter(letter) if beside else ''}<b>{letter.upper()}</b>"
        f'<span><span class="choice">{shortened(text)}</span>{(picks or {}).get(letter, "")}</span></li>'
        for letter, text in zip(question.letters, question.choices, strict=True)
    )
    context = (
        f'<details class="context"><summary>{both("context")}</summary>'
        f'<p lang="{tongue}">{shortened(question.context)}</p></details>'
        if question.context
        else ""
    )
    kind = (" beside" if beside else "") + (" many-models" if many else "")
    return (
        f'<section class="card question{kind}" data-key="{safe(key)}"{_gold(question) if beside else ""}>'
        f'{_recall(question) if beside else ""}<div class="facts">'
        f'<h2 tabindex="-1">{safe(question.question_id)}</h2>{_facts(question)}{_switches() if beside else ""}</div>'
        f'{context}<p class="stem" lang="{tongue}">{shortened(question.text)}</p>'
        f'<ol class="choices" lang="{tongue}">{choices}</ol>{_key(question)}</section>'
    )


def _letter(letter: str) -> str:
    return f'<button type="button" class="own" data-letter="{letter}" aria-pressed="false">{letter.upper()}</button>'


def _gold(question: Question) -> str:
    return f' data-gold="{safe(" / ".join(map(write_answer, question.gold)))}"'


def _recall(question: Question) -> str:
    """Return the line that is shown while the card is scrolled away; a press brings the card back."""
    return (
        f'<button type="button" class="recall" data-switch="recalled" aria-expanded="false">'
        f"<b>{safe(question.question_id)}</b> <span>{safe(question.text[:RECALLED])}</span></button>"
    )


def _switches() -> str:
    """Return the buttons that unfold the card, and that hide all answers until the reader has chosen one."""
    return (
        f'<span class="switches"><button type="button" class="linkish unfold" data-switch="unfolded" '
        f'aria-expanded="false">{both("whole_question")}</button><button type="button" class="linkish" '
        f'data-switch="solving" aria-expanded="false">{both("solve")}</button></span>'
        f'<span class="own-answer" role="status"></span>'
    )


def shortened(text: str) -> str:
    """Return text as safe HTML, without its middle if it is too long for a page."""
    if len(text) <= LONGEST_CARD:
        return safe(text)
    head, tail = text[: LONGEST_CARD * 3 // 4], text[-LONGEST_CARD // 4 :]
    gap = both("cut_here", n=f"{len(text) - len(head) - len(tail):,}")
    return f'{safe(head)}<span class="gap">{gap}</span>{safe(tail)}'


def _facts(question: Question) -> str:
    facts = [safe(question.benchmark)]
    facts += [safe(part) for part in (question.year, question.section, question.category) if part]
    facts.append(both("points", n=question.points))
    if question.human_accuracy is not None:
        facts.append(f"{both('examinees')} {question.human_accuracy * 100:.0f}%")
    if question.required:
        facts.append(both("required"))
    if question.numeric:
        facts.append(both("numeric"))
    badges = f'<strong class="badge warn">{both("image")}</strong>' if question.image else ""
    return "".join(f"<span>{fact}</span>" for fact in facts) + badges


def _chosen(question: Question) -> str:
    """Return what share of the examinees took each choice: it gives the answer away, so it is folded with the key."""
    shares = zip(question.letters, question.breakdown, strict=False)
    shown = ", ".join(f"{letter.upper()} {share * 100:.0f}%" for letter, share in shares)
    return f"<p>{both('examinees')}: {shown}</p>" if shown else ""


def _key(question: Question) -> str:
    answers = " / ".join(map(write_answer, question.gold)).upper()
    warned = (
        f'<p class="harm">{both("prohibited")}: {safe(", ".join(sorted(question.prohibited)).upper())}</p>'
        if question.prohibited
        else ""
    )
    explained = (
        f'<h3>{both("official_explanation")}</h3><p lang="{question.language}">{shortened(question.explanation)}</p>'
        if question.explanation
        else ""
    )
    return (
        f'<details class="key"><summary>{both("show_key")}</summary><p><b>'
        f"{both('key')}: {safe(answers)}</b></p>{warned}{_chosen(question)}{explained}</details>"
    )


MOST_BARS = 3_000
"""Vertical bars of a text that is still rendered: a table of hundreds of columns is shown as it was written."""


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
    return reader


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
