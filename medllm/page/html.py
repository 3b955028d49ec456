"""HTML from untrusted text: everything is escaped here, and every sentence exists in both languages."""

import functools
import html
from importlib import resources

import yaml

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


def safe(text: object) -> str:
    """Return text as HTML that cannot become markup or a template, whatever its author wrote.

    Braces, dollars and backticks are escaped too: Gradio compiles a component's template as JavaScript, and a model
    may write `${alert(1)}`.

    >>> safe('<b>${x}</b> {{y}}')
    '&lt;b&gt;&#36;&#123;x&#125;&lt;/b&gt; &#123;&#123;y&#125;&#125;'
    """
    escaped = html.escape(str(text), quote=True)
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

    >>> signed(-0.121), signed(0.018)
    ('−12.1', '+1.8')
    """
    return "–" if share != share else f"{share * 100:+.{digits}f}".replace("-", "−")
