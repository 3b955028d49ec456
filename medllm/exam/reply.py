"""What a reply is before it is read: its visible text, where it ran on, and whether it ends in a loop."""

import re
import unicodedata
from dataclasses import dataclass

CIRCLED = "❶❷❸❹❺❻❼❽"
"""What circled digits become: a form that NFKC leaves alone, so that they stay apart from plain digits."""

_PROTECT = str.maketrans("①②③④⑤⑥⑦⑧", CIRCLED)
_CIRCLED = re.compile("[①-⑧]")
_THOUGHT = re.compile(r"^.*</think(?:ing)?>", re.S)
_OPEN_THOUGHT = re.compile(r"<think(?:ing)?>")
_CHANNEL = re.compile(r"^.*<\|channel\|>final<\|message\|>", re.S)
_STOP = re.compile(r"<\|(?:im_end|endoftext|eot_id|end|return|end_of_text)\|>|</s>|<end_of_turn>|<eos>")
_TURN = re.compile(
    r"\n[ \t]*(?:#{1,4}[ \t]*)?(?:\*\*)?[ \t]*"
    r"(?:【?問題】?[ \t]*\d{0,3}[ \t]*[::]|【問題】|問[ \t]*\d{1,3}[ \t]*[::.)]|(?:Question|Q)[ \t]*\d{0,3}[ \t]*[::]"
    r"|(?:User|Human|Assistant|System|ユーザー?|アシスタント)[ \t]*[::])"
    r"|<\|(?:im_start|start_header_id|start|user|assistant)\|>|\[INST\]|<start_of_turn>",
    re.I,
)
_LABELLED = re.compile(
    r"\n[ \t]*[([]?a[:.)\]、 \t][^\n]*\n+[ \t]*[([]?b[:.)\]、 \t][^\n]*\n+[ \t]*[([]?c[:.)\]、 \t]", re.I
)
_LOOP_SPAN = 80
_LOOP_TIMES = 3


@dataclass(frozen=True, slots=True)
class Reply:
    """The readable part of a completion."""

    text: str
    """NFKC text without thinking, stop tokens and whatever follows an invented next question."""
    run_on: bool
    """Whether something was generated after the reply's natural end."""
    loop: bool
    """Whether the completion ends in repeating itself."""
    open_thinking: bool
    """Whether it was still thinking when it ended, so that there is no reply."""


def normal(text: str) -> str:
    """NFKC with line ends unified and circled digits kept apart from plain ones.

    >>> normal("答え：ａ，②")
    '答え:a,❷'
    """
    if _CIRCLED.search(text):
        text = text.translate(_PROTECT)
    return unicodedata.normalize("NFKC", text).replace("\r\n", "\n").replace("\r", "\n")


def read_reply(completion: str, asked: str | None = None) -> Reply:
    """Find the readable part of a completion; `asked` is the question's text, which a reply may say again."""
    text = normal(completion)
    loop = ends_in_loop(text)
    text = _THOUGHT.sub("", text) if "</think" in text else text
    text = _CHANNEL.sub("", text) if "<|channel|>" in text else text
    if _OPEN_THOUGHT.search(text):
        return Reply("", run_on=False, loop=loop, open_thinking=True)
    text = text.lstrip()
    turn = next(
        (turn for turn in _TURN.finditer(text) if not _repeats(text[turn.end() : turn.end() + 200], asked)), None
    )
    cuts = [match.start() for match in (_STOP.search(text), turn, _invented_options(text)) if match]
    if not cuts:
        return Reply(text.rstrip(), run_on=False, loop=loop, open_thinking=False)
    rest = _STOP.sub("", text[min(cuts) :]).strip()
    return Reply(text[: min(cuts)].rstrip(), run_on=bool(rest), loop=loop, open_thinking=False)


def _repeats(after: str, asked: str | None) -> bool:
    """Whether the line behind "Question:" is the question that was asked, rather than an invented one."""
    line = re.sub(r"\W", "", after.lstrip().split("\n", 1)[0])[:40]
    grams = {line[at : at + 3] for at in range(len(line) - 2)}
    if asked is None or not grams:
        return False
    known = re.sub(r"\W", "", normal(asked))
    return sum(gram in known for gram in grams) > 0.5 * len(grams)


def _invented_options(text: str) -> re.Match[str] | None:
    """The start of a new list of choices under a reply whose first line was already an answer."""
    first_line = text.split("\n", 1)[0]
    if (
        not re.fullmatch(r"[\s(\[]*[a-hA-H](?:[\s,、・と)\]]*[a-hA-H])*[\s)\].。]*", first_line)
        or not first_line.strip()
    ):
        return None
    if not _LABELLED.search(text, len(first_line)):
        return None
    return re.compile(r"\n").search(text)


def ends_in_loop(text: str) -> bool:
    """Whether the last part of a text is one unit said at least three times over, for 80 characters or more.

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
