"""Lists of letters (or one number) at a given place in a text, in the many ways that models write them."""

import re

from medllm.exam.question import LETTERS
from medllm.exam.reply import CIRCLED

_OPEN = r"[(\[{<〈《]{0,3}[ \t]{0,4}(?:(?:選択肢|肢|[Oo]ptions?|[Cc]hoices?)[ \t]{0,4})?[(\[{<〈《]{0,3}[ \t]{0,4}"
_CLOSE = r"[)\]}>〉》]{0,4}"
_LETTER = re.compile(rf"{_OPEN}(?P<letter>[a-hA-H]|[{CIRCLED}])(?P<close>{_CLOSE})")
_RUN = re.compile(
    rf"{_OPEN}(?P<run>[a-hA-H]{{2,5}}){_CLOSE}(?![A-Za-z0-9])(?=[ \t]*(?:$|[\n。.,、)\]}}(]|です|である|だ|が|と))"
)
_DIGIT = re.compile(
    rf"{_OPEN}(?P<digit>[1-8])(?:番)?{_CLOSE}(?![\d%])(?!\.\d)"
    r"(?=\s*(?:$|[\n。.,、・/:)\]}(]|です|である|だ|が|と|および|及び|and))"
)
_SEPARATOR = re.compile(
    r"[ \t]*(?:\([^()\n]{1,60}\)[ \t]*)?"
    r"(?:[,、・/&;+]|と|および|及び|ならびに|並びに|かつ|and\b)[ \t,、]*(?:and\b[ \t]*)?|[ \t]+"
)
_NOT_AFTER = re.compile(
    r"[A-Za-z0-9_²]|[-‐–'’]\w|\.[a-z]\.|/(?=[A-Za-z0-9])(?![a-hA-H](?![A-Za-z0-9]))|(?![及並])[一-鿿ァ-ヴー々]"
)
_ARTICLE = re.compile(r"[ \t]+(?!and\b|or\b)(?:[a-z]{2,}|[A-Z][a-z]+[ \t]+[a-z])")
_INSTEAD = re.compile(r"\s*(?:ではなく|でなく|じゃなく)(?:て)?[、,]?\s*")
_DENIED = re.compile(
    r"\s*(?:では(?:な|あり|正)|以外|を除|または|もしくは|あるいは|か[、,]?\s*[a-hA-H](?![A-Za-z])"
    r"|の?(?:どちら|いずれ)|の(?:中|うち)|or\b|〜|~|から[a-h]|は?(?:どれ|何))"
)
_ENDED = re.compile(r"[\s。.．)\]]*(?:です|である|だ)?[\s。.]*")
_COMMENT = re.compile(r"\s*\([^()\n]{1,120}\)[\s。.]*")
_LABELLED = re.compile(r"[ \t]*[:.)、( \t][ \t]*(?P<words>[^\n。]{1,80})[\s。.]*")
_SPREAD = re.compile(r"(?:^|(?<=[\n、,と]))[ \t・-]*[(\[]?(?P<letter>[a-hA-H])[)\]]?[ \t]*[:.)( 　]")
_WORD = re.compile(r"[A-Za-z0-9]")
_NUMBER = re.compile(
    r"(?:❶\s*(?=\d{2}))?(?:約|およそ|about|approximately|≈|≒)?\s*"
    r"(?P<number>[-+−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?)(?!\s*(?:つ|個目|日あたり|日当たり))"
)
_CELLS = re.compile(r"❶\s*[:=は]?\s*(\d)[\s,、]*❷\s*[:=は]?\s*(\d)(?:[\s,、]*❸\s*[:=は]?\s*(\d))?")


def letters_at(text: str, start: int, allowed: str, *, lenient: bool) -> frozenset[str] | None:
    """The letters of the list that starts at `start`, or None when no list stands there.

    `lenient` also takes letters without separators ("bd"), and digits for choices ("2" is b).
    """
    found = _list_at(text, start, allowed, lenient=lenient)
    if found is None:
        return None
    letters, end = found
    if letters == frozenset(allowed):
        return None
    if instead := _INSTEAD.match(text, end):
        return letters_at(text, instead.end(), allowed, lenient=lenient)
    return None if _DENIED.match(text, end) else letters


def bare_list(text: str, allowed: str) -> tuple[frozenset[str], str] | None:
    """A text that is nothing but a list: its letters, and one choice's own words where they stand behind its letter.

    >>> bare_list("b: 硫化水素中毒", "abcde")
    (frozenset({'b'}), '硫化水素中毒')
    """
    found = _list_at(text, 0, allowed, lenient=True)
    if found is None or found[0] == frozenset(allowed):
        return None
    letters, end = found
    if _ENDED.fullmatch(text, end) or (len(letters) > 1 and _COMMENT.fullmatch(text, end)):
        return letters, ""
    labelled = _LABELLED.fullmatch(text, end) if len(letters) == 1 and not _was_digit(text, end) else None
    return (letters, labelled["words"]) if labelled else None


def spread_list(text: str, start: int, allowed: str, wanted: int) -> frozenset[str] | None:
    """The letters of a list in which each has its choice's words behind it: "b: 硫化水素、d: 一酸化炭素"."""
    part = text[start : start + 400].split("\n\n", 1)[0]
    letters = {label["letter"].lower() for label in _SPREAD.finditer(part)}
    return frozenset(letters) if len(letters) == wanted and letters <= set(allowed) else None


def list_before(text: str, allowed: str) -> frozenset[str] | None:
    """The letters of the list that ends where the text ends (「…よって b と d」), or None.

    >>> sorted(list_before("よって b と d", "abcde"))
    ['b', 'd']
    """
    for start in range(len(text)):
        if (start == 0 or not _WORD.match(text[start - 1])) and (
            found := _list_at(text, start, allowed, lenient=False)
        ):
            letters, end = found
            if not text[end:].strip(" \t()"):
                return letters
    return None


def number_at(text: str, start: int) -> str | None:
    """The number that starts at `start`, without thousands separators, or None.

    >>> number_at("答え: 1,130 kcal", 4)
    '1130'
    """
    rest = re.compile(r"\s*").match(text, start)
    begin = rest.end() if rest else start
    if cells := _CELLS.match(text, begin):
        return "".join(digit for digit in cells.groups() if digit)
    found = _NUMBER.match(text, begin)
    return found["number"].replace(",", "").replace("−", "-").lstrip("+") if found else None


def _list_at(text: str, start: int, allowed: str, *, lenient: bool) -> tuple[frozenset[str], int] | None:
    """Letters and the place behind them."""
    if lenient and (run := _RUN.match(text, start)):
        letters = run["run"].lower()
        one_case = run["run"] in (letters, letters.upper())
        if one_case and list(letters) == sorted(set(letters)) and set(letters) <= set(allowed):
            return frozenset(letters), run.end()
    found: list[str] = []
    end = start
    item = _item_at(text, start, allowed, lenient=lenient)
    while item is not None:
        letter, end = item
        found.append(letter)
        gap = _SEPARATOR.match(text, end)
        item = _item_at(text, gap.end(), allowed, lenient=lenient and _was_digit(text, end)) if gap else None
    return (frozenset(found), end) if found else None


def _was_digit(text: str, end: int) -> bool:
    """Whether the item that ends at `end` was written as a digit, so that digits may follow it in the list."""
    return text[:end].rstrip(")]}>〉》番")[-1:].isdigit()


def _item_at(text: str, start: int, allowed: str, *, lenient: bool) -> tuple[str, int] | None:
    """One letter and the place behind it."""
    if found := _LETTER.match(text, start):
        raw = found["letter"]
        letter = LETTERS[CIRCLED.index(raw)] if raw in CIRCLED else raw.lower()
        if letter not in allowed or (not found["close"] and _NOT_AFTER.match(text, found.end())):
            return None
        article = letter == "a" and not found["close"] and _ARTICLE.match(text, found.end())
        return None if article else (letter, found.end())
    if lenient and (found := _DIGIT.match(text, start)):
        letter = LETTERS[int(found["digit"]) - 1]
        return (letter, found.end()) if letter in allowed else None
    return None
