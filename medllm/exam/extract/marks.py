"""Marks by which a reply announces its answer, and the test for an answer in a distinct form."""

import re

from medllm.exam.extract.phrases import CONNECTORS, HEADING, MARK

_FILLER = re.compile(
    r"(?:\n[ \t]*[-*•・][ \t]+|[\s:=は、→⇒]|以下の(?:通り|とおり|[2-5二三]つ)(?:です|である)?[。:]?"
    r"|次の(?:通り|とおり)(?:です)?"
    r"|それぞれ|(?:最も適切なのは"
    r"|正しいのは)|options?\s|letters?\s)*",
    re.I,
)
_BLANK = re.compile(r"[ \t]*(?:\n+(?=[^\n]{1,12}\Z))?")
_MOST_MARKS = 300


def marks_of(text: str) -> list[re.Match[str]]:
    """Return the places where an answer is announced, the last one first."""
    lowered = text.lower()
    same = lowered if len(lowered) == len(text) else text
    found = [mark for mark in MARK.finditer(same) if not _inside_word(text, mark.start())][-_MOST_MARKS:]
    found += list(HEADING.finditer(text))[-_MOST_MARKS:]
    return sorted(found, key=lambda mark: (mark.start(), mark.end()), reverse=True)


def _inside_word(text: str, start: int) -> bool:
    """Return whether an English mark is the tail of a longer word."""
    letter = text[start - 1 : start] if start else ""
    return text[start].isascii() and letter.isascii() and letter.isalpha()


def behind(text: str, mark: re.Match[str]) -> int:
    """Return the place where the answer after a mark begins."""
    connected = mark[0].rstrip()[-1:] in CONNECTORS
    filler = (_FILLER if connected else _BLANK).match(text, mark.end())
    return filler.end() if filler else mark.end()


def is_firm(text: str, start: int, end: int, how: str) -> bool:
    """Return whether an answer has a distinct form: a box, a tag, a separate line, or the reply's first words."""
    if how in ("boxed", "tag"):
        return True
    line = text.rfind("\n", 0, start) + 1
    if not text[:line].strip() and start - line < 40 and not re.search(r"[。!?]|\.\s", text[line:start]):
        return True
    rest = text[end : end + 60].split("\n", 1)[0]
    return not text[line:start].strip(" \t#>*・•-(") and not re.sub(r"[\s。.)\]】]|です|である", "", rest)
