"""Read the answer out of a reply: which letters (or number), found how, and why not when there is none."""

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from medllm.exam.finding import find
from medllm.exam.question import Question
from medllm.exam.record import Status
from medllm.exam.reply import Reply, read_reply


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a reply says."""

    answer: str | None
    """Letters in order, "b,d", or the number as digits; None when the reply gives none."""
    how: str | None
    """The rule that found it: boxed, marker, bare, last line, first line, conclusion, choice text."""
    status: Status
    """answered, or why there is no countable answer."""
    run_on: bool = False
    """Whether the reply went on into an invented next question or turn (its answer was read before that)."""
    truncated: bool = False
    """Whether the reply was cut off by its budget."""
    loop: bool = False
    """Whether the reply ends in repeating itself."""


def parse(completion: str, question: Question | None = None, *, finish_reason: str | None = None) -> Parsed:
    """Read a reply's answer; the last marked answer counts, never a letter inside the explanation.

    >>> parse("症状から肺塞栓を疑う。答え：ａ，Ｃ").answer
    'a,c'
    >>> parse("正解はｂとｄです。").answer
    'b,d'
    >>> parse("わかりません").status
    'unparsed'
    """
    reply = read_reply(completion, question.text if question else None)
    answer, how = find(reply.text, question)
    truncated = finish_reason == "length" or reply.open_thinking
    return Parsed(
        answer, how, _status(answer, question, reply, truncated=truncated), reply.run_on, truncated, reply.loop
    )


def is_right(question: Question, answer: str | None) -> bool:
    """Whether an answer is among the accepted ones; numbers count by value or by the digits of the answer cells."""
    if question.anything_right:
        return True
    if answer is None:
        return False
    if question.numeric:
        return any(_same_number(answer, next(iter(gold))) for gold in question.gold)
    return frozenset(answer.split(",")) in question.gold


def _same_number(answer: str, gold: str) -> bool:
    try:
        if Decimal(answer) == Decimal(gold):
            return True
    except InvalidOperation:
        return False
    return answer.isdigit() and answer == gold.replace(".", "")


def _status(answer: str | None, question: Question | None, reply: Reply, *, truncated: bool) -> Status:
    if answer is not None:
        counts = {len(gold) for gold in question.gold} if question and not question.numeric else set()
        return "wrong_count" if counts and answer.count(",") + 1 not in counts else "answered"
    if reply.loop:
        return "loop"
    if truncated:
        return "truncated"
    return "run_on" if reply.run_on else "unparsed"
