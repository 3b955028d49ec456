"""The one number that a reply gives: results of calculations, cells, powers; ranges and fractions are none."""

import re
from decimal import Decimal

_ABOUT = r"(?:約|およそ|おおよそ|ほぼ|概ね|about|approximately|approx\.?|roughly|around|≈|≒|~)?"
_NUMBER = re.compile(
    rf"(?:❶\s*(?=\d{{2}}))?{_ABOUT}\s*\(?"
    r"(?P<number>[-+−]?(?:(?:\d{1,3}(?:[, ]\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+))"
    r"(?P<power>\s*(?:[×x*]\s*10\s*(?:\^|\*\*)\s*[{(]?(?P<ten>[-+−]?\d{1,2})[})]?|e(?P<e>[-+−]?\d{1,2})(?![\da-z])))?",
    re.I,
)
_NO_NUMBER = re.compile(
    r"\s*[÷×*+]\s*[\d(]|\s*(?:つ|個目|日あたり|日当たり)|\s*[~〜～∼±]\s*\d|\s*[-–—]\s*\d|\s*/\s*\d|\s*から\s*\d|\s*to\s+\d"
    r"|\s*(?:以上|以下|未満|より|前後[^。\n]{0,3}か)"
    r"|[^\d\n。、]{0,6}(?:または|もしくは|あるいは|\bor\b|か)\s*\d|[ \t]+\d|[ \t]*,[ \t]*\d|か\s*[?。]?\s*$"
    r"|\s*(?:\?|では(?:な|あり))"
)
_INSTEAD = re.compile(
    r"[^\d\n。、]{0,8}(?:では(?:なく|ない|ありません)|でなく|じゃなく)(?:て|です)?[、。,]?\s*(?:(?:正しくは"
    r"|正解は|答えは)[、,]?)?\s*"
)
_CELLS = re.compile(r"❶\s*[:=は]?\s*(\d)[\s,、]*❷\s*[:=は]?\s*(\d)(?:[\s,、]*❸\s*[:=は]?\s*(\d))?")
_BLANK_CELLS = re.compile(r"(\d(?:[ \t]+\d)+)(?![\d.,%])(?=\s*(?:$|[\n。]|です|である))")
_EQUALS = re.compile(r"[=≈≒→⇒]|で(?=\s*[\d.])|\bequals\b")
_BLANK = re.compile(r"\s*")
_SUM = re.compile(r"[^\n]{0,300}")
_WORD_IN_SUM = re.compile(r"[ぁ-ん]{2,}")


def number_at(text: str, start: int) -> str | None:
    """The number that is given at `start`, as digits with a point at most, or None.

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
    found = _NUMBER.match(text, begin if result is None else result)
    if found is not None and (other := _INSTEAD.match(text, found.end())):
        found = _NUMBER.match(text, other.end())
    return None if found is None or _NO_NUMBER.match(text, found.end()) else _digits(found)


def _result_of(text: str, begin: int) -> int | None:
    """The place behind the last equals sign of the calculation that begins here, outside brackets opened later."""
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


def _digits(found: re.Match[str]) -> str:
    """The number's digits, with its power of ten multiplied out."""
    digits = found["number"].replace(",", "").replace(" ", "").replace("−", "-").lstrip("+")
    digits = re.sub(r"^(-?)\.", r"\g<1>0.", digits)
    power = found["ten"] or found["e"]
    if power is None:
        return digits
    value = Decimal(digits).scaleb(int(power.replace("−", "-")))
    return f"{value:f}" if value != value.to_integral_value() else f"{value.to_integral_value():f}"
