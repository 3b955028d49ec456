"""The header with its language switch, and the bar that is always visible: disclaimer and provenance."""

from medllm.page.html import both, safe
from medllm.page.results import Origin


def header(title: str | None = None) -> str:
    """Return the title (a recipe's own, or the page's), the subject of the page, and the language switch."""
    switch = "".join(
        f'<button type="button" lang="{language}" data-speak="{language}" aria-pressed="false">{name}</button>'
        for language, name in (("ja", "日本語"), ("en", "English"))
    )
    return (
        f'<header class="top"><div><h1>{safe(title) if title else both("title")}</h1><p>{both("lead")}</p></div>'
        f'<nav aria-label="日本語 / English">{switch}</nav></header>'
    )


def bar(origin: Origin | None, *, live: bool) -> str:
    """Return the disclaimer and the kind of the answers: recorded, live or simulated, with source and revision."""
    marking = "recorded" if origin is None or origin.marking == "miniature" else origin.marking
    chips = f'<span class="chip">{both(marking)}</span>' + (f'<span class="chip">{both("live")}</span>' if live else "")
    hint = f"{origin.marking if origin else 'recorded'}_hint"
    name = "" if origin is None else safe(origin.name) + (f"@{safe(origin.revision[:12])}" if origin.revision else "")
    return (
        f'<aside class="bar" id="page-ready"><strong>⚠ {both("disclaimer")}</strong>{chips}'
        f'<span class="from">{both(hint)} {name}</span></aside>'
    )
