"""A text on its way into the corpus, and the `Document` that cannot exist without its dates and its licence."""

import hashlib
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

from medllm.corpus.dates import read_date
from medllm.corpus.licences import read_license
from medllm.errors import DataError

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
            found = read_date(written)
        except DataError as fault:
            return f"bad_{which}_date: {fault}"
        if found > self.cutoff:
            return f"{which}_after_cutoff: {found.isoformat()}"
        return found
