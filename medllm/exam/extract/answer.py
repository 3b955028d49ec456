"""Read the answer of a reply: the letters (or number), the rule that found them, or the reason why there are none."""

from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation

from medllm.exam.extract.completion import Completion, read_completion
from medllm.exam.extract.marks import NOTHING
from medllm.exam.extract.reply_end import other_choices
from medllm.exam.extract.rules import find
from medllm.exam.extract.thinking import thinks_aloud
from medllm.exam.question import Question, write_answer
from medllm.exam.record import Status


@dataclass(frozen=True, slots=True)
class Parsed:
    """The answer of a reply."""

    answer: str | None
    """Letters in order, "b,d", or the number as digits; None when the reply gives none."""
    extraction_rule: str | None
    """The rule that found it: boxed, tag, marker, correction, bare, last line, first line, conclusion, choice text."""
    status: Status
    """`answered`, or the reason why there is no countable answer."""
    run_on: bool = False
    """Whether the reply continued into an invented next question or turn (only the text before it is read)."""
    truncated: bool = False
    """Whether the reply was cut off by its budget."""
    loop: bool = False
    """Whether the reply ends in a repetition loop."""


_LAST_WORDS = 100
"""Distance from the end, in characters, within which a reply that reads like thinking may give its answer."""


def parse(
    completion: str, question: Question | None = None, *, finish_reason: str | None = None, thinks: bool = False
) -> Parsed:
    """Read a reply's answer: the last marked answer counts, never a letter inside the explanation.

    `thinks`: the prompt's template has opened the thinking, so a completion that never closes it is truncated. Of a
    completion that was cut off (`finish_reason` "length") only an answer in a distinct form counts: a box, a
    tag, a key, a separate line, or the first words. The same applies to a text that thinks without marks.

    >>> parse("症状から肺塞栓を疑う。答え：ａ，Ｃ").answer
    'a,c'
    >>> parse("正解はｂとｄです。").answer
    'b,d'
    >>> parse("わかりません").status
    'unparsed'
    >>> parse("まず a を考える。答えは a か", thinks=True).status
    'truncated'
    """
    reply = read_completion(completion, question.text if question else None, thinks=thinks)
    found = find(reply.text, question)
    if question is not None and (other := other_choices(reply.text, question.choices)) is not None:
        above = find(reply.text[:other], question)
        if above.firm:
            found, reply = above, replace(reply, text=reply.text[:other], run_on=True)
    truncated = finish_reason == "length" or reply.open_thinking
    if not found.firm and not reply.run_on:
        unfinished = found.behind > _LAST_WORDS and thinks_aloud(reply.text)
        truncated = truncated or (unfinished and finish_reason is None)
        found = NOTHING if truncated or unfinished else found
    status = _status(found.answer, question, reply, truncated=truncated)
    return Parsed(found.answer, found.rule, status, reply.run_on, truncated, reply.loop)


def is_right(question: Question, answer: str | None) -> bool:
    """Return whether an answer is accepted; numbers match by value or by the digits of the answer cells."""
    if question.any_answer_correct:
        return True
    if answer is None:
        return False
    if question.numeric:
        return any(_same_number(answer, next(iter(gold))) for gold in question.gold)
    return frozenset(answer.split(",")) in question.gold


def unmatched_answers(question: Question) -> list[str]:
    """Return the accepted answers that the parser does not read from a reply that writes them plainly."""
    written = map(write_answer, question.gold)
    return [answer for answer in written if not is_right(question, parse(f"答え: {answer}", question).answer)]


def _same_number(answer: str, gold: str) -> bool:
    try:
        if Decimal(answer) == Decimal(gold):
            return True
    except InvalidOperation:
        return False
    return answer.isdigit() and answer == gold.replace(".", "")


def _status(answer: str | None, question: Question | None, reply: Completion, *, truncated: bool) -> Status:
    if answer is not None:
        counts = {len(gold) for gold in question.gold} if question and not question.numeric else set()
        return "wrong_count" if counts and answer.count(",") + 1 not in counts else "answered"
    if reply.loop:
        return "loop"
    if truncated:
        return "truncated"
    return "run_on" if reply.run_on else "unparsed"
