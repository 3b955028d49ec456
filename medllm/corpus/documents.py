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
    """A text as a reader found it: what it says of its own date and licence is not yet believed."""

    text: str
    source: str
    """The reference in the recipe that it came from."""
    locator: str
    """Where in the source it stands: a file and a line, a page, a question."""
    license: str | None = None
    published: str | None = None
    exam_date: str | None = None
    kind: Kind = "text"
    group: str = ""
    """What it is another rendering of: the plain and the explained form of one question are no duplicates."""
    topic: str = ""
    """The recipe's word for the kind of text."""
    fault: str | None = None
    """Why the reader could not make sense of it, with the reason before the colon; None when it could."""

    def __post_init__(self) -> None:
        """Put a mark for each half of a character: JSON can say such halves, and no file of UTF-8 can hold them."""
        for name in ("text", "locator", "license", "published", "exam_date"):
            told = getattr(self, name)
            try:
                (told or "").encode()
            except UnicodeEncodeError:
                object.__setattr__(self, name, told.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))

    @property
    def id(self) -> str:
        """The same text from the same place has the same name on every machine."""
        named = "\x1f".join((self.source, self.locator, self.text))
        return hashlib.sha256(named.encode("utf-8", "replace")).hexdigest()[:16]


@dataclass(frozen=True)
class Document:
    """A text with its source, place, licence and dates; without them it cannot be made."""

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
        """Refuse a text that does not say when it was published and under which terms."""
        place = f"{self.source} {self.locator}"
        if not isinstance(self.published, date):
            raise DataError(
                f"{place}: no date of publication. State `published` for the source in the recipe, or map its column."
            )
        if not self.license:
            raise DataError(f"{place}: no licence. State `license` for the source in the recipe, or map its column.")
        if not self.source or not self.locator:
            raise DataError(f"{place}: a document says which source it came from and where in it it stands.")
        if self.kind == "exam" and not isinstance(self.exam_date, date):
            raise DataError(f"{place}: an exam item without the date of its exam. Map `exam_date` or name the exam.")


@dataclass(frozen=True)
class AdmissionGate:
    """What a text must state to become a document: dates on or before the cutoff and a licence that is allowed."""

    cutoff: date
    allowed: frozenset[str] | None
    """The licences of the recipe's list; None allows every stated one."""

    def admit(self, draft: Draft) -> Document | str:
        """The document that the draft amounts to, or the reason why it is none."""
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
