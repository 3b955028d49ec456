"""The question card: stem, choices, facts about the question, and the key behind a disclosure."""

from medllm.exam.question import Question, write_answer
from medllm.page.html import both, hidden, safe

LONGEST = 20_000
"""Characters of a question shown at once; an exam item has hundreds, a broken file may have millions."""


def question_card(key: str, question: Question) -> str:
    """Return the card of one question; the id is its heading for a screen reader."""
    tongue = question.language
    choices = "".join(
        f"<li><b>{letter.upper()}</b><span>{shortened(text)}{_chosen_by(question, place)}</span></li>"
        for place, (letter, text) in enumerate(zip(question.letters, question.choices, strict=True))
    )
    context = (
        f'<details class="context"><summary>{both("context")}</summary>'
        f'<p lang="{tongue}">{shortened(question.context)}</p></details>'
        if question.context
        else ""
    )
    return (
        f'<section class="card question" data-key="{safe(key)}"><div class="facts">'
        f"<h2>{safe(question.question_id)}</h2>{_facts(question)}</div>"
        f'{context}<p class="stem" lang="{tongue}">{shortened(question.text)}</p>'
        f'<ol class="choices" lang="{tongue}">{choices}</ol>{_key(question)}</section>'
    )


def shortened(text: str) -> str:
    """Return text as safe HTML, without its middle if it is too long for a page."""
    if len(text) <= LONGEST:
        return safe(text)
    head, tail = text[: LONGEST * 3 // 4], text[-LONGEST // 4 :]
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


def _chosen_by(question: Question, place: int) -> str:
    if place >= len(question.breakdown):
        return ""
    return f'<small class="share">{hidden("examinees")}{question.breakdown[place] * 100:.0f}%</small>'


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
        f"{both('key')}: {safe(answers)}</b></p>{warned}{explained}</details>"
    )
