"""The page as HTML: escaped text in two languages, the cards of questions and faults, and rendered replies."""

import functools
import html
import re
from collections.abc import Mapping
from importlib import resources

import yaml

from medllm.errors import DataError
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


CATEGORIES = ("known", "text", "exam", "fact", "case", "pair", "days")
"""The words of which the miniature's own categories are made."""


def category_html(category: str) -> str:
    """Return a category for a reader: those of the miniature in both languages, an exam's own as they are."""
    parts = category.split("/")
    return "・".join(both(f"kind_{part}") for part in parts) if set(parts) <= set(CATEGORIES) else safe(category)


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


def bound(share: float) -> str:
    """Return an end of an interval in points with as many digits as show on which side of zero it is.

    >>> bound(-0.012), bound(0.0003), bound(-0.00001), bound(0.0)
    ('−1.2', '+0.03', '−0.001', '+0.0')
    """
    digits = next((digits for digits in (1, 2, 3) if share != share or round(abs(share) * 100, digits) > 0), 1)
    return signed(share, digits)


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
    facts += [safe(part) for part in (question.year, question.section) if part]
    facts += [category_html(question.category)] if question.category else []
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
