"""What is read of a completion, the one form of its characters, and whether it ends in a loop."""

import re
import unicodedata
from dataclasses import dataclass

from medllm.exam.record import Status

CIRCLED = "❶❷❸❹❺❻❼❽"
"""The replacements of circled digits: NFKC does not change them, so they remain distinct from plain digits."""

_SQUARED = {chr(first + place): chr(ord("A") + place) for first in (0x1F150, 0x1F170) for place in range(8)}
_PROTECT = str.maketrans(
    {sign: CIRCLED[place % 8] for place, sign in enumerate("①②③④⑤⑥⑦⑧➀➁➂➃➄➅➆➇➊➋➌➍➎➏➐➑⓵⓶⓷⓸⓹⓺⓻⓼")}
    | _SQUARED
    | {"\ufe0f": None, "\ufe0e": None, "\u200b": None, "\u2060": None, "\ufeff": None}
)
_PROTECTED = re.compile("[①-⑧➀-➇➊-➑⓵-⓼\U0001f150-\U0001f157\U0001f170-\U0001f177\ufe0e\ufe0f\u200b\u2060\ufeff]")
_SENTENCE = re.compile(r"(?=.|\n)[^。！？!?\n]*(?:[。！？!?]+[」』）)]*\n*|\n+|$)")
_LOOP_SPAN = 80
_LOOP_TIMES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """What is read of a reply: its readable part, and the answer in it."""

    answer: str | None = None
    """Letters in order, "b,d", or the number as digits; None when the reply gives none."""
    extraction_rule: str | None = None
    """The rule that found it: boxed, tag, marker, correction, bare, last line, first line, conclusion, choice text."""
    status: Status = "unparsed"
    """`answered`, or the reason why there is no countable answer."""
    run_on: bool = False
    """Whether the reply continued into an invented next question or turn (only the text before it is read)."""
    truncated: bool = False
    """Whether the reply was cut off by its budget, or ends inside its thinking."""
    thinking: bool = False
    """Whether the reply ends before its thinking does; then it is truncated too."""
    loop: bool = False
    """Whether the reply ends in a repetition loop."""
    text: str = ""
    """NFKC text without thinking, stop tokens and anything from an invented next question on."""
    firm: bool = False
    """Whether the answer has a distinct form (a box, a tag, a key, a separate line, the first words), so that it counts
    even where the reply was cut off."""
    behind: int = 0
    """Number of characters after the answer."""


def normal(text: str) -> str:
    """Convert text to NFKC with unified line ends; circled digits remain distinct from plain ones.

    >>> normal("答え：ａ，②")
    '答え:a,❷'
    """
    if _PROTECTED.search(text):
        text = text.translate(_PROTECT)
    return unicodedata.normalize("NFKC", text).replace("\r\n", "\n").replace("\r", "\n")


def sentences(text: str) -> list[str]:
    r"""Cut a text after its sentence ends and line breaks; joined again it is the same text.

    >>> sentences("発熱がある。肺炎か？\n答え：a")
    ['発熱がある。', '肺炎か？\n', '答え：a']
    """
    return _SENTENCE.findall(text)


def ends_in_loop(text: str) -> bool:
    """Return whether a text ends in one unit repeated at least three times, over 80 characters or more.

    >>> ends_in_loop("よって、" + "ビタミンの欠乏である。" * 12)
    True
    >>> ends_in_loop("よって、ビタミンの欠乏である。" * 2)
    False
    """
    text = text.rstrip()
    tail = text[-24:]
    before = text.rfind(tail, 0, len(text) - 1) if len(tail) == 24 else -1
    if before < 0 or len(set(tail) - set(" \n-=|_.・")) < 2:
        return False
    period = len(text) - 24 - before
    span = period
    while span < len(text) and text[-1 - span] == text[-1 - span + period]:
        span += 1
    return span >= max(_LOOP_SPAN, _LOOP_TIMES * period)
