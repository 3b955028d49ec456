"""A text on its way into the corpus: its date and licence, and the `Document` that cannot exist without them."""

import calendar
import hashlib
import re
import unicodedata
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

from medllm.errors import DataError


class UnreadableError(DataError):
    """A text that cannot be read; its code names the reason under which it is counted."""

    @property
    def reason(self) -> str:
        """Name the reason in the words of the corpus' table: `scanned_pdf` for `corpus.scanned-pdf`."""
        return self.code.partition(".")[2].replace("-", "_")

    @property
    def fault(self) -> str:
        """Write reason and text as a draft holds them: `scanned_pdf: 3 pages hold 1 characters. ...`."""
        return f"{self.reason}: {self}"


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
    day_read = date(year, month, day)
    _within_era(era, day_read, written)
    return day_read


def _era_year(era: str, written: str) -> int:
    return ERAS[LETTERS.get(era, era)][1] + (1 if written == "元" else int(written))


def _within_era(era: str | None, day: date, written: object) -> None:
    if era is None:
        return
    name = LETTERS.get(era, era)
    starts = [first for first, _ in ERAS.values()]
    later = [first for first in starts if first > ERAS[name][0]]
    # A whole year or month may end after its era did: 平成31年 is read as the last day it can mean in the calendar.
    if day < ERAS[name][0] or (later and day.year > later[0].year):
        raise DataError("corpus.bad-date", f"`{written}` is not a date: {name} has no such year. {_FORMS}")


# Licences that allow training a model and showing its corpus. A recipe may name its own list instead.
ALLOWED = (
    "apache-2.0",
    "cc-by-3.0",
    "cc-by-4.0",
    "cc-by-sa-3.0",
    "cc-by-sa-4.0",
    "cc0-1.0",
    "gjstu-2.0",
    "mit",
    "pdl-1.0",
    "public-domain",
)

_ALIASES = {
    "cc0": "cc0-1.0",
    "publicdomain": "public-domain",
    "pd": "public-domain",
    "パブリックドメイン": "public-domain",
    "公共データ利用規約第1.0版": "pdl-1.0",
    "公共データ利用規約(第1.0版)": "pdl-1.0",
    "公共データ利用規約": "pdl-1.0",
    "政府標準利用規約第2.0版": "gjstu-2.0",
    "政府標準利用規約(第2.0版)": "gjstu-2.0",
    "apache2.0": "apache-2.0",
    "apache-2": "apache-2.0",
    "apache": "apache-2.0",
    "クリエイティブ・コモンズ表示4.0": "cc-by-4.0",
}
_CREATIVE_COMMONS = re.compile(r"creativecommons\.org/(licenses|publicdomain)/([a-z-]+)/(\d\.\d)")
_UNKNOWN = {"", "unknown", "none", "null", "n/a", "other", "不明", "-"}


def read_license(written: str | None) -> str | None:
    """Return one spelling for a licence name or address, or None when none is stated: unknown is not allowed.

    >>> read_license("CC BY-SA 4.0"), read_license("https://creativecommons.org/licenses/by/4.0/deed.ja")
    ('cc-by-sa-4.0', 'cc-by-4.0')
    >>> read_license("unknown") is None
    True
    """
    text = unicodedata.normalize("NFKC", written or "").strip().lower()
    address = _CREATIVE_COMMONS.search(text)
    if address:
        kind, name, version = address.groups()
        return "cc0-1.0" if name == "zero" else "public-domain" if kind == "publicdomain" else f"cc-{name}-{version}"
    if text in _UNKNOWN:
        return None
    text = re.sub(r"\s+", "" if re.search(r"[ぁ-んァ-ヶ一-龥]", text) else "-", text).removesuffix("-license")
    return _ALIASES.get(text, text)


Kind = Literal["text", "exam", "replay"]


@dataclass(frozen=True)
class Draft:
    """A text as a reader found it; the date and licence it states are not yet checked."""

    text: str
    source: str
    """The reference of the source in the recipe."""
    locator: str
    """Position of the text in the source: a file and a line, a page, a question."""
    license: str | None = None
    published: str | None = None
    exam_date: str | None = None
    kind: Kind = "text"
    group: str = ""
    """Name shared by renderings of one item: the plain and the explained form of a question are no duplicates."""
    topic: str = ""
    """The recipe's name for the kind of text."""
    fault: str | None = None
    """Why the reader could not read the text, with the reason before the colon; None when it could."""

    def __post_init__(self) -> None:
        """Replace each lone surrogate by a mark: JSON can hold half a character, a UTF-8 file cannot."""
        for name in ("text", "locator", "license", "published", "exam_date"):
            value = getattr(self, name)
            try:
                (value or "").encode()
            except UnicodeEncodeError:
                object.__setattr__(self, name, value.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))

    @property
    def id(self) -> str:
        """Return a name that is the same for the same text from the same place on every machine."""
        named = "\x1f".join((self.source, self.locator, self.text))
        return hashlib.sha256(named.encode("utf-8", "replace")).hexdigest()[:16]


@dataclass(frozen=True)
class Document:
    """A text with its source, place, licence and dates; all of them are required."""

    text: str
    source: str
    locator: str
    license: str
    published: date
    exam_date: date | None = None
    kind: Kind = "text"
    topic: str = ""
    group: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        """Raise DataError for a text without a date of publication or a licence."""
        place = f"{self.source} {self.locator}"
        if not isinstance(self.published, date):
            raise DataError(
                "corpus.no-date",
                f"{place}: the document has no date of publication. State `published` for the source in the recipe,"
                " or map its column.",
            )
        if not self.license:
            raise DataError(
                "corpus.no-license",
                f"{place}: the document has no licence. State `license` for the source in the recipe, or map its"
                " column.",
            )
        if not self.source or not self.locator:
            raise DataError("corpus.no-provenance", f"{place}: a document needs `source` and `locator`. Give both.")
        if self.kind == "exam" and not isinstance(self.exam_date, date):
            raise DataError(
                "corpus.no-exam-date",
                f"{place}: the exam question has no date of its exam. Map `exam_date` or name the exam.",
            )


@dataclass(frozen=True)
class AdmissionGate:
    """Requirements for a document: dates on or before the cutoff and an allowed licence."""

    cutoff: date
    allowed: frozenset[str] | None
    """The licences of the recipe's list; None allows every stated one."""

    def admit(self, draft: Draft) -> Document | str:
        """Return the document that the draft becomes, or the reason why it is refused."""
        if draft.fault:
            return draft.fault
        license = read_license(draft.license)
        if license is None:
            return "no_license: none is stated"
        if self.allowed is not None and license not in self.allowed:
            return f"license_not_allowed: {license}"
        published = self._date(draft.published, "published")
        if isinstance(published, str):
            return published
        exam_date = None
        if draft.exam_date or draft.kind == "exam":
            held = self._date(draft.exam_date, "exam")
            if isinstance(held, str):
                return held
            exam_date = held
        return Document(
            draft.text,
            draft.source,
            draft.locator,
            license,
            published,
            exam_date,
            kind=draft.kind,
            topic=draft.topic,
            group=draft.group,
        )

    def _date(self, written: str | None, which: str) -> date | str:
        if not written:
            return f"no_{which}_date: none is stated"
        try:
            read = read_date(written)
        except DataError as fault:
            return f"bad_{which}_date: {fault}"
        if read > self.cutoff:
            return f"{which}_after_cutoff: {read.isoformat()}"
        return read
