"""The one number that a reply gives: results of calculations, cells, powers; ranges and fractions do not count."""

import re
from decimal import Decimal

from medllm.exam.extract.completion import Parsed
from medllm.exam.extract.vocabulary import (
    CORRECTION,
    HEADING,
    WITHDRAWN,
    behind,
    is_firm,
    marks_of,
    of_another,
    under_condition,
)

_ABOUT = r"(?:約|およそ|おおよそ|ほぼ|概ね|about|approximately|approx\.?|roughly|around|≈|≒|~)?"
_NUMBER = re.compile(
    rf"(?:❶\s*(?=\d{{2}}))?{_ABOUT}\s*\(?"
    r"(?P<number>[-+−]?(?:(?:\d{1,3}(?:[, ]\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+))"
    r"(?P<power>\s*(?:[×x*]\s*10\s*(?:\^|\*\*)\s*[{(]?(?P<ten>[-+−]?\d{1,2})[})]?|e(?P<e>[-+−]?\d{1,2})(?![\da-z])))?",
    re.I,
)
_NO_NUMBER = re.compile(
    r"\s*(?:\^|\*\*)\s*\d|[^\d\n。、]{1,3}に[ \t]*\d|\s*[÷×*+]\s*[\d(]"
    r"|\s*(?:つ|個目|日あたり|日当たり)|\s*[~〜～∼±]\s*\d|\s*[-–—]\s*\d|\s*/\s*\d"
    r"|\s*から\s*\d|\s*to\s+\d"
    r"|\s*(?:以上|以下|未満|より|前後[^。\n]{0,3}か)"
    r"|[^\d\n。、]{0,6}(?:または|もしくは|あるいは|\bor\b|か)\s*\d|[ \t]+\d|[ \t]*,[ \t]*\d|か\s*[?。]?\s*$"
    r"|\s*(?:\?|では(?:な|あり))"
)
_INSTEAD = re.compile(
    r"[^\d\n。、]{0,8}(?:では(?:なく|ない|ありません)|でなく|じゃなく)(?:て|です)?[、。,]?\s*(?:(?:正しくは"
    r"|正解は|答えは)[、,]?)?\s*"
)
_ROUNDED = re.compile(
    r"[^\d\n。、(]{0,8}\s*\(?\s*(?:(?:これを|の)?小数(?:点以下|点)?第?[\d一二三]+?位(?:以下)?)?を?"
    r"(?:四捨五入|切り?捨て|切り?上げ)(?:して|すると|し[、,]?|て|ると|で)\s*(?:答えは)?(?=[約\d.])"
    r"|[^\d\n。、(]{0,8}\s*[,(]?\s*(?:which\s+)?(?:is\s+)?round(?:ed|s|ing)\s+(?:off\s+|up\s+|down\s+)?to\s+(?=[\d.])",
    re.I,
)
"""The rounding of a number to the one behind it: 「2.08 を四捨五入して 2.1」."""
_CELLS = re.compile(r"❶\s*[:=は]?\s*(\d)[\s,、]*❷\s*[:=は]?\s*(\d)(?:[\s,、]*❸\s*[:=は]?\s*(\d))?")
_BLANK_CELLS = re.compile(r"(\d(?:[ \t]+\d)+)(?![\d.,%])(?=\s*(?:$|[\n。]|です|である))")
_EQUALS = re.compile(r"[=≈≒]|[→⇒](?:\s*(?:四捨五入(?:して|すると)|切り(?:捨て|上げ)て))?|で(?=\s*[\d.])|\bequals\b")
_BLANK = re.compile(r"\s*")
_NAMED_NUMBER = re.compile(r"[^\d\n。、❶]{1,20}(?:は|が|=|:|\bis)\s*(?=[\d約❶.])")
_BARE_NUMBER = re.compile(r"[^\d\n❶-❽.]{0,8}?(?P<number>[-+−]?[\d❶-❽.][\d,.❶-❽ \t:=]*)[^\d\n]{0,20}")
_CONCLUDED_NUMBER = re.compile(
    r"(?:したがって|従って|よって|以上(?:より|から)|ゆえに|therefore|thus|hence)[^\n。]{0,40}?(?:は|が|="
    r"|\bis)\s*(?=[\d約❶])",
    re.I,
)
_RIGHT_NUMBER = re.compile(
    r"(?:正しい(?:の|値|数)は|求める(?:値|数)は)\s*(?=[\d約.])|(?:^|(?<=[\s、。は]))(?=[\d.]{1,12}[^\d\n。、]{0,6}が(?:正解|正答|答え)(?!とは|では))"
)
_LAST_NUMBER = re.compile(
    r"[ \t]*[-+−]?(?:約|およそ)?[\d.,]{1,12}[ \t]*[^\d\n。、]{0,8}(?<=[a-zA-Zμ])?(?:[23²³][^\d\n。、]{0,5})?[。.]?"
)
_SUM = re.compile(r"[^\n]{0,300}")
_WORD_IN_SUM = re.compile(r"[ぁ-ん]{2,}")


def number_at(text: str, start: int) -> str | None:
    """Return the number at `start`, as digits with at most one point, or None.

    >>> number_at("答え: 1,130 kcal", 4)
    '1130'
    >>> number_at("答え: 4.2 ÷ 2 = 2.1", 4)
    '2.1'
    >>> number_at("答え: 2.0~2.2", 4) is None
    True
    """
    blank = _BLANK.match(text, start)
    begin = blank.end() if blank else start
    if cells := _CELLS.match(text, begin):
        return "".join(digit for digit in cells.groups() if digit)
    if cells := _BLANK_CELLS.match(text, begin):
        return "".join(cells[1].split())
    result = _result_of(text, begin)
    match = _NUMBER.match(text, begin if result is None else result)
    if match is not None and (other := _INSTEAD.match(text, match.end()) or _ROUNDED.match(text, match.end())):
        match = _NUMBER.match(text, other.end())
    return None if match is None or _NO_NUMBER.match(text, match.end()) else _digits(match)


def _result_of(text: str, begin: int) -> int | None:
    """Return the place after the last equals sign of the calculation that begins here, outside later brackets."""
    line = _SUM.match(text, begin)
    part = line[0] if line else ""
    first = re.match(r"[-+−(\d.約]", part)
    if first is None:
        return None
    stop = part.find("。")
    part = part if stop < 0 else part[:stop]
    last = None
    for sign in _EQUALS.finditer(part):
        before = part[: sign.start()]
        if before.count("(") > before.count(")") or (last is None and _WORD_IN_SUM.search(before)):
            break
        if not re.match(rf"\s*{_ABOUT}\s*[-+−(\d.]", part[sign.end() :], re.I):
            break
        last = sign.end()
    return None if last is None else begin + last


def _digits(match: re.Match[str]) -> str:
    """Return the number's digits, with its power of ten multiplied out."""
    digits = match["number"].replace(",", "").replace(" ", "").replace("−", "-").lstrip("+")
    digits = re.sub(r"^(-?)\.", r"\g<1>0.", digits)
    power = match["ten"] or match["e"]
    if power is None:
        return digits
    value = Decimal(digits).scaleb(int(power.replace("−", "-")))
    return f"{value:f}" if value != value.to_integral_value() else f"{value.to_integral_value():f}"


def find_number(text: str) -> Parsed:
    """Find the last marked number, a bare one, one alone on the last line, or the one that is concluded."""
    digits, end = _marked_number(text)
    for change in list(CORRECTION.finditer(text, end))[-20:][::-1] if end else ():
        if (number := number_at(text, change.end())) is not None:
            return Parsed(answer=number, extraction_rule="correction")
    if end:
        return Parsed() if WITHDRAWN.search(text, end) else digits
    cells = _CELLS.fullmatch(text)
    if cells:
        return Parsed(answer=number_at(text, 0), extraction_rule="bare", firm=True)
    bare = _BARE_NUMBER.fullmatch(text)
    if bare:
        number = number_at(text, bare.start("number"))
        return Parsed(answer=number, extraction_rule="bare", firm=True) if number is not None else Parsed()
    *above, last = text.split("\n")
    result = last[last.rfind("=") + 1 :]
    if (above or result != last) and _LAST_NUMBER.fullmatch(result) and (number := number_at(result, 0)) is not None:
        return Parsed(answer=number, extraction_rule="last line")
    for pattern in (_CONCLUDED_NUMBER, _RIGHT_NUMBER):
        concluded = [place for place in pattern.finditer(text) if not under_condition(text, place.start())]
        number = number_at(text, concluded[-1].end()) if concluded else None
        if number is not None:
            return Parsed(answer=number, extraction_rule="conclusion")
    return Parsed()


def _marked_number(text: str) -> tuple[Parsed, int]:
    """Return the last number after a mark, with its place; only the place if the mark names something unclear."""
    for mark in marks_of(text):
        if of_another(text, mark.start()) or under_condition(text, mark.start()):
            continue
        begin = mark.end() if mark.re is HEADING else behind(text, mark)
        named = _NAMED_NUMBER.match(text, begin)
        number = number_at(text, begin) or (number_at(text, named.end()) if named else None)
        if number is not None:
            how = {"boxed:": "boxed", "tagged:": "tag"}.get(mark[0], "marker")
            firm = is_firm(text, mark.start(), begin, how)
            return Parsed(answer=number, extraction_rule=how, firm=firm, behind=len(text) - begin), begin
        if re.match(r"\s*\D{0,3}\d", text[begin : begin + 8]):
            return Parsed(), begin
    return Parsed(), 0
