"""Read the answer of a reply: the letters (or number), the rule that found them, or the reason why there are none."""

import re
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal, InvalidOperation

from medllm.exam.extract.completion import Parsed, ends_in_loop, normal
from medllm.exam.extract.numbers import find_number
from medllm.exam.extract.reply import STOP, cuts, other_choices, plain, thinks_aloud, without_thinking
from medllm.exam.extract.rules import (
    ChoicesAt,
    read_conclusion,
    read_correction,
    read_first_line,
    read_last_line,
    read_marked,
    read_statement,
    read_whole,
)
from medllm.exam.extract.statements import keyed_value
from medllm.exam.extract.vocabulary import WITHDRAWN, AnswerSpace, answer_space
from medllm.exam.question import Question, write_answer
from medllm.exam.record import Status

_HARD_TURN = re.compile(
    r"<\|im_start\|>\s*(?:user|system)|<\|start_header_id\|>\s*(?:user|system)|<\|start\|>\s*(?:user|system)"
    r"|<start_of_turn>\s*user|<\|turn>\s*user|<\|(?:im_)?(?:user|system)\|>|\[INST\]",
    re.I,
)
"""The beginning of another speaker's turn: the text after it is not part of the reply, nor of its thinking."""
_OPENING = re.compile(
    r"\s*(?:<\|(?:im_start|start_header_id|start|turn)\|?>\s*assistant\s*(?:<\|end_header_id\|>|\n)?"
    r"|<\|assistant\|>|(?:assistant|アシスタント)[ \t]*:)",
    re.I,
)
_ROLE_WORD = re.compile(r"\A\s*assistant\s*(?=[<\[◁])")
_BARE_THOUGHT = re.compile(r"thought[ \t]*\n")
"""The head of thinking whose special tokens were dropped in decoding, as Gemma's family writes it."""
_OPEN_LIST = re.compile(r"(?:[,、・と]|\b(?:and|[a-hA-H]))[ \t]*\Z")
_FINISHED = re.compile(r"(?:[^\w\s(,、・「『《〈:;=+/-]|(?<![A-Za-z])[a-hA-H])\Z")
_LAST_WORDS = 100
"""Distance from the end, in characters, within which a reply that reads like thinking may give its answer."""


def parse(
    completion: str, question: Question | None = None, *, finish_reason: str | None = None, thinks: bool = False
) -> Parsed:
    """Read a reply's answer: the last marked answer counts, never a letter inside the explanation.

    `thinks`: the prompt's template has opened the thinking, so a completion that never closes it is truncated. Of a
    completion that was cut off (`finish_reason` "length" or "repetition") only an answer in a distinct form counts: a
    box, a tag, a key, a separate line, or the first words. The same applies to a text that thinks without marks.

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
    parsed = _find(reply.text, question)
    if question is not None and (other := other_choices(reply.text, question.choices)) is not None:
        above = _find(reply.text[:other], question)
        if above.firm:
            parsed, reply = above, replace(reply, text=reply.text[:other], run_on=True)
    truncated, thinking = finish_reason in ("length", "repetition") or reply.truncated, reply.thinking
    loop = reply.loop or finish_reason == "repetition"
    if finish_reason != "stop" and _BARE_THOUGHT.match(reply.text):
        parsed, truncated, thinking = Parsed(), True, True
    if truncated and _breaks_off(parsed.answer, reply.text, question):
        parsed = Parsed()
    if not parsed.firm and not reply.run_on:
        aloud = thinks_aloud(reply.text)
        unfinished = parsed.behind > _LAST_WORDS and aloud
        if finish_reason is None:
            unfinished = unfinished or _stops_in_a_sentence(reply.text, parsed.behind, thinking=aloud)
            truncated = truncated or unfinished
        thinking = thinking or (unfinished and truncated)
        parsed = Parsed() if truncated or unfinished else parsed
    parsed = replace(parsed, text=reply.text, run_on=reply.run_on, loop=loop)
    parsed = replace(parsed, truncated=truncated, thinking=thinking)
    return replace(parsed, status=_status(parsed, question))


def _breaks_off(answer: str | None, text: str, question: Question | None) -> bool:
    """Return whether a reply was cut within its answer: in a number, or in a list with fewer letters than asked for."""
    if answer is None or question is None:
        return False
    if question.numeric:
        return text[-1:].isdigit() or text[-1:] in ".,"
    return answer.count(",") + 1 < question.answers_wanted and _OPEN_LIST.search(text) is not None


def _stops_in_a_sentence(text: str, behind: int, *, thinking: bool) -> bool:
    """Return whether a text stops in a sentence that it began after its answer, beside sentences that it ended.

    In a text that reads like `thinking` those may be on earlier lines.
    """
    tail = text[len(text) - behind :] if behind else ""
    sentences = re.split(r"(?<=[。.!?])(?=[\s\u3000-\uffef])" + (r"|\n" if thinking else ""), tail.rstrip())
    last = sentences[-1].strip()
    return len(sentences) > 1 and ("\n" not in last or thinking) and _FINISHED.search(last) is None


def _find(text: str, question: Question | None) -> Parsed:
    """Find the answer that the readable part of a reply gives: a key first, then a number or letters."""
    asked = answer_space(question)
    numeric = question is not None and question.numeric
    keyed = keyed_value(text)
    if keyed is not None:
        inner = plain(keyed)
        parsed = find_number(inner) if numeric else _letters(inner, asked)
        return (
            Parsed(answer=parsed.answer, extraction_rule="marker", firm=True) if parsed.answer is not None else Parsed()
        )
    text = plain(text)
    return find_number(text) if numeric else _letters(text, asked)


_EMPTY_LABELS = re.compile(r"\s*:\s*([A-Za-z])(?!\w)(?:\s*:\s*\1(?!\w))+")
"""One label again and again with nothing behind it ("A:", "A:", "A:"), at the end of a text that is read backwards."""


def _letters(text: str, asked: AnswerSpace) -> Parsed:
    """Find letters by the strongest rule that reads any: mark, correction, whole reply, line, conclusion."""
    if empty := _EMPTY_LABELS.match(text[::-1]):
        text = text[: len(text) - empty.end()]
    marked = read_marked(text, asked)
    changed = read_correction(text, marked.end if marked else 0, asked)
    if changed is not None:
        return _finding(changed, text)
    if marked is not None:
        if WITHDRAWN.search(text, marked.end):
            return Parsed()
        return _finding(marked, text)
    for rule in (read_whole, read_last_line, read_conclusion, read_statement, read_first_line):
        letters = rule(text, asked)
        if letters is not None:
            return _finding(letters, text)
    return Parsed()


def _finding(place: ChoicesAt, text: str) -> Parsed:
    answer = write_answer(place.letters)
    return Parsed(answer=answer, extraction_rule=place.rule, firm=place.firm, behind=len(text) - place.end)


def read_completion(completion: str, asked: str | None = None, *, thinks: bool = False) -> Parsed:
    """Find the readable part of a completion, without reading its answer.

    `asked` is the question's text, which a reply may repeat. `thinks`: the prompt's template has
    opened the thinking, so a completion that never closes it has no reply and is truncated.
    """
    text = normal(completion)
    loop = ends_in_loop(text)
    other = next((turn.start() for turn in _HARD_TURN.finditer(text) if text[: turn.start()].strip()), None)
    text = text if other is None else text[:other]
    visible = without_thinking(_ROLE_WORD.sub("", text, count=1), thinks=thinks)
    if visible is None:
        return Parsed(truncated=True, thinking=True, loop=loop)
    text = (visible[opening.end() :] if (opening := _OPENING.match(visible)) else visible).lstrip()
    ends = cuts(text, None if asked is None else normal(asked))
    rest = STOP.sub("", text[min(ends) :]).strip() if ends else ""
    text = text[: min(ends, default=None)].rstrip()
    return Parsed(text=text, run_on=bool(rest) or other is not None, loop=loop)


def answer_at(parts: Sequence[str], answer: str | None, question: Question, *, within: int | None = None) -> int | None:
    """Return the place of the sentence from which an answer was read: the last marked answer counts.

    It begins the shortest end of the reply (its sentences, as `sentences` cuts them) that gives the same answer.
    None where there is no answer, or no such end among the last `within` sentences.

    >>> key = {"gold": (frozenset("a"),), "key": ("a",)}
    >>> asked = Question(question_id="1", benchmark="b", text="?", choices=("x", "y"), **key)
    >>> answer_at(["答え：b。", "よって答え：a。", "以上。"], "a", asked)
    1
    """
    first = 0 if within is None else max(0, len(parts) - within)
    if answer is not None:
        for place in range(len(parts) - 1, first - 1, -1):
            if parse("".join(parts[place:]), question).answer == answer:
                return place
    return None


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


def _status(parsed: Parsed, question: Question | None) -> Status:
    if parsed.answer is not None:
        counts = {len(gold) for gold in question.gold} if question and not question.numeric else set()
        return "wrong_count" if counts and parsed.answer.count(",") + 1 not in counts else "answered"
    if parsed.loop:
        return "loop"
    if parsed.truncated:
        return "truncated"
    return "run_on" if parsed.run_on else "unparsed"
