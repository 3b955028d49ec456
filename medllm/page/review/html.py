"""The blind review as HTML: the pair with its form, the thanks with the names, and the raters' agreement."""

from medllm.exam.question import Question
from medllm.page.card import LONGEST, question_card
from medllm.page.html import both, percent, safe, word
from medllm.page.review.pairs import ROLES, ReviewPair, sentences
from medllm.votes.vote import CHOICES, LONGEST_NOTE, REASONS, Agreement, Use, Vote


def pair_form(pair: ReviewPair, question: Question, at: int, use: Use, language: str = "ja") -> str:
    """Return one pair with the form of a vote; a list of choices can be in one language only."""
    sides = "".join(_side(name, record.completion) for name, record in (("a", pair.a), ("b", pair.b)))
    buttons = "".join(
        f'<button type="button" data-choose="{choice}" disabled>{both(f"choose_{choice}")}</button>'
        for choice in CHOICES
    )
    roles = "".join(f'<option value="{role}">{safe(word(f"role_{role}", language))}</option>' for role in ROLES)
    return (
        f'<form class="vote" data-at="{at}" data-shown="{pair.shown}">{question_card(pair.key, question)}'
        f'<p class="quiet">{both("review_how")}</p><div class="pair">{sides}</div>'
        f"<fieldset><legend>{both('review_more')}</legend>"
        f'<label for="vote-role">{both("role")}</label>'
        f'<select id="vote-role" name="role"><option value="">–</option>{roles}</select>'
        f'<label for="vote-note">{both("note")}</label>'
        f'<textarea id="vote-note" name="note" rows="2" maxlength="{LONGEST_NOTE}"></textarea></fieldset>'
        f'<p class="quiet">{_use(use)}</p>'
        f'<label><input type="checkbox" name="consent"> {both("consent")}</label>'
        f'<div class="choose">{buttons}</div><p class="vote-status" role="status" aria-live="polite"></p></form>'
    )


def _side(name: str, text: str) -> str:
    shown = sentences(text[:LONGEST])
    marked = "".join(
        f'<button type="button" data-sentence="{place}" aria-pressed="false">{safe(part)}</button>'
        for place, part in enumerate(shown)
    )
    boxes = "".join(
        f'<label><input type="checkbox" name="reasons_{name}" value="{reason}"> {both(f"reason_{reason}")}</label>'
        for reason in REASONS
    )
    letter = name.upper()
    return (
        f'<div class="card side" data-side="{name}">'
        f'<h2 id="side-{name}">{letter}</h2>'
        f'<div class="text" tabindex="0" role="region" aria-labelledby="side-{name}">{marked}</div>'
        f"<fieldset><legend>{both('reasons_of', side=letter)}</legend>{boxes}</fieldset></div>"
    )


def thanks(pair: ReviewPair, vote: Vote, question: Question) -> str:
    """Return the message after a vote is safe: thanks, the two models' names, and their verdicts."""
    rows = "".join(
        f"<li><b>{side}</b> = {safe(record.model)}: {safe((record.answer or '–').upper())} "
        f"{both('right' if record.correct else 'unparsed' if record.answer is None else 'wrong')}</li>"
        for side, record in (("A", pair.a), ("B", pair.b))
    )
    return (
        f'<section class="card panel" tabindex="-1" id="thanks"><h2>{both("thanks")}</h2><ul>{rows}</ul>'
        f"<p>{both('key')}: {safe(question.gold_answer.upper())} · {_use(vote.use)}</p>"
        f'<div class="tools"><button type="button" data-next-pair>{both("next_pair")}</button></div></section>'
    )


def _use(use: Use) -> str:
    return both("use_training" if use == "training" else "use_evaluation_only")


def no_more() -> str:
    """Return the message for a rater who has seen every pair, or if there is none."""
    return f'<p class="card panel" role="status">{both("no_pairs")}</p>'


def agreement_line(found: Agreement) -> str:
    """Return the figures of agreement, with the counts behind them."""
    text = both("agreement_counts", votes=found.votes, raters=found.raters, pairs=found.pairs)
    if found.pairs and found.kappa == found.kappa:
        interval = f"κ = {found.kappa:.2f} [{found.low:.2f}, {found.high:.2f}]".replace("-", "−")
        text += f" {both('agreement_equal', share=percent(found.equal))} {safe(interval)}"
    return f'<p class="quiet" id="agreement">{text}</p>'
