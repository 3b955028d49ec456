"""The readable part of a completion: the visible text, whether it ran on, and whether it ends in a loop."""

import re
import unicodedata
from dataclasses import dataclass

from medllm.exam.extract.reply_end import STOP, cuts
from medllm.exam.extract.thinking import without_thinking

CIRCLED = "❶❷❸❹❺❻❼❽"
"""The replacements of circled digits: NFKC does not change them, so they remain distinct from plain digits."""

_SQUARED = {chr(first + place): chr(ord("A") + place) for first in (0x1F150, 0x1F170) for place in range(8)}
_PROTECT = str.maketrans(
    {one: CIRCLED[place % 8] for place, one in enumerate("①②③④⑤⑥⑦⑧➀➁➂➃➄➅➆➇➊➋➌➍➎➏➐➑⓵⓶⓷⓸⓹⓺⓻⓼")}
    | _SQUARED
    | {"\ufe0f": None, "\ufe0e": None, "\u200b": None, "\u2060": None, "\ufeff": None}
)
_PROTECTED = re.compile("[①-⑧➀-➇➊-➑⓵-⓼\U0001f150-\U0001f157\U0001f170-\U0001f177\ufe0e\ufe0f\u200b\u2060\ufeff]")
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
_LOOP_SPAN = 80
_LOOP_TIMES = 3


@dataclass(frozen=True, slots=True)
class Completion:
    """The readable part of a completion."""

    text: str
    """NFKC text without thinking, stop tokens and anything from an invented next question on."""
    run_on: bool
    """Whether something was generated after the reply's natural end."""
    loop: bool
    """Whether the completion ends in a repetition loop."""
    open_thinking: bool
    """Whether the completion ends inside its thinking, so that there is no reply."""


def normal(text: str) -> str:
    """Convert text to NFKC with unified line ends; circled digits remain distinct from plain ones.

    >>> normal("答え：ａ，②")
    '答え:a,❷'
    """
    if _PROTECTED.search(text):
        text = text.translate(_PROTECT)
    return unicodedata.normalize("NFKC", text).replace("\r\n", "\n").replace("\r", "\n")


def read_completion(completion: str, asked: str | None = None, *, thinks: bool = False) -> Completion:
    """Find the readable part of a completion.

    `asked` is the question's text, which a reply may repeat. `thinks`: the prompt's template has
    opened the thinking, so a completion that never closes it has no reply.
    """
    text = normal(completion)
    loop = ends_in_loop(text)
    other = next((turn.start() for turn in _HARD_TURN.finditer(text) if text[: turn.start()].strip()), None)
    text = text if other is None else text[:other]
    visible = without_thinking(_ROLE_WORD.sub("", text, count=1))
    if visible.open or (thinks and not visible.closed):
        return Completion("", run_on=False, loop=loop, open_thinking=True)
    text = visible.text
    text = (text[opening.end() :] if (opening := _OPENING.match(text)) else text).lstrip()
    ends = cuts(text, None if asked is None else normal(asked))
    if not ends:
        return Completion(text.rstrip(), run_on=other is not None, loop=loop, open_thinking=False)
    rest = STOP.sub("", text[min(ends) :]).strip()
    return Completion(
        text[: min(ends)].rstrip(), run_on=bool(rest) or other is not None, loop=loop, open_thinking=False
    )


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
