"""Dates of texts, in western years or Japanese eras, read as the last day they can mean."""

import calendar
import re
import unicodedata
from datetime import date

from medllm.errors import DataError

# First day of each era and the year before its year 1 (Meiji to Reiwa).
ERAS = {
    "明治": (date(1868, 1, 25), 1867),
    "大正": (date(1912, 7, 30), 1911),
    "昭和": (date(1926, 12, 25), 1925),
    "平成": (date(1989, 1, 8), 1988),
    "令和": (date(2019, 5, 1), 2018),
}
LETTERS = {"M": "明治", "T": "大正", "S": "昭和", "H": "平成", "R": "令和"}

LATEST = 2099
"""Latest year that is accepted: later ones are typing errors; years up to it are compared with the cutoff."""

_ERA = re.compile(
    r"(?P<era>明治|大正|昭和|平成|令和|[MTSHR])\s*(?P<year>元|\d{1,2})\s*(?:年|[./-]|$)"
    r"\s*(?:(?P<month>\d{1,2})\s*(?:月|[./-]|$)\s*(?:(?P<day>\d{1,2})\s*日?)?)?$"
)
_WESTERN = re.compile(
    r"(?P<year>\d{4})\s*(?:年|[./-]|$)\s*(?:(?P<month>\d{1,2})\s*(?:月|[./-]|$)\s*(?:(?P<day>\d{1,2})\s*日?)?)?$"
)
_PACKED = re.compile(r"(?P<year>\d{4})(?P<month>\d{2})(?P<day>\d{2})$")
_FORMS = "Write it as 2017-03-31, 2017-03, 2017 or 平成29年3月31日."
_CLOCK = re.compile(r"[T\s]\d{1,2}:\d{2}.*$")


def read_date(written: str | int | date | None) -> date:
    """Return the last day that `written` can mean, so that a bare year never counts as its January.

    >>> read_date("平成29年").isoformat(), read_date("令和元年5月").isoformat(), read_date("２０１７/3/9").isoformat()
    ('2017-12-31', '2019-05-31', '2017-03-09')
    """
    if isinstance(written, date):
        return date(written.year, written.month, written.day)
    text = _CLOCK.sub("", unicodedata.normalize("NFKC", "" if written is None else str(written)).strip())
    match = _PACKED.match(text) or _WESTERN.match(text) or _ERA.match(text)
    if match is None:
        raise DataError("corpus.bad-date", f"`{written}` is not a date. {_FORMS}")
    parts = match.groupdict()
    era = parts.get("era")
    year = _era_year(era, parts["year"]) if era else int(parts["year"])
    month = int(parts["month"]) if parts["month"] else 12
    if not 1 <= month <= 12:
        raise DataError("corpus.bad-date", f"`{written}` is not a date: there is no month {month}. {_FORMS}")
    # The check does not use today's date: the same text must be judged the same next year.
    if not 1 <= year <= LATEST:
        raise DataError(
            "corpus.bad-date", f"`{written}` is not a date: the year {year} is not from 1 to {LATEST}. {_FORMS}"
        )
    last = calendar.monthrange(year, month)[1]
    day = int(parts["day"]) if parts["day"] else last
    if not 1 <= day <= last:
        raise DataError(
            "corpus.bad-date", f"`{written}` is not a date: month {month} of {year} has no day {day}. {_FORMS}"
        )
    found = date(year, month, day)
    _within_era(era, found, written)
    return found


def _era_year(era: str, written: str) -> int:
    return ERAS[LETTERS.get(era, era)][1] + (1 if written == "元" else int(written))


def _within_era(era: str | None, found: date, written: object) -> None:
    if era is None:
        return
    name = LETTERS.get(era, era)
    starts = [first for first, _ in ERAS.values()]
    later = [first for first in starts if first > ERAS[name][0]]
    # A whole year or month may end after its era did: 平成31年 is read as the last day it can mean in the calendar.
    if found < ERAS[name][0] or (later and found.year > later[0].year):
        raise DataError("corpus.bad-date", f"`{written}` is not a date: {name} has no such year. {_FORMS}")
