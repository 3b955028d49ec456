"""Blind review: a box that the browser fills with pairs; votes use a separate address, not an event."""

from medllm.page.context import PageContext
from medllm.page.html import both, safe, word
from medllm.page.review.html import agreement_line, no_more
from medllm.page.tabs.components import block


def draw(page: PageContext) -> None:
    """Draw the tab on which readers vote."""
    ballot = page.ballot
    if ballot is None:
        block(f'<p class="card panel">{both("review_off")}</p>')
        return
    block(f'<p class="lead">{both("review_lead")}</p>{agreement_line(ballot.agreement())}')
    if not ballot.review.candidates:
        block(no_more())
        return
    away = " / ".join(word("not_saved", language) for language in ("ja", "en"))
    block(
        f'<p class="rater"><label for="rater-name">{both("rater_name")}</label>'
        '<input id="rater-name" maxlength="60" autocomplete="off" aria-describedby="rater-how">'
        f'<small id="rater-how">{both("rater_how")}</small></p>'
        f'<div id="review-box" data-unsaved="{safe(away)}" data-away="{safe(away)}">'
        f'<p role="status">{both("fetching")}</p></div>',
        js_on_load="window.medllm.review()",
    )
