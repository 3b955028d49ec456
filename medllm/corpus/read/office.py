"""The text of Word, PowerPoint, EPUB and PDF files; a scan, which has none, is refused with a reason."""

import codecs
import functools
import io
import logging
import posixpath
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

from medllm.corpus.documents import UnreadableError
from medllm.corpus.read.raw_files import bounded_archive, decode
from medllm.corpus.read.text_files import PageText, read_html
from medllm.errors import MissingExtraError


def read_docx(data: bytes) -> str:
    """Read the paragraphs and tables of a Word file; headers, footers and comments are left out."""
    try:
        from docx import Document
        from docx.table import Table
    except ImportError as fault:
        raise MissingExtraError("curate", "Reading .docx files") from fault

    def lines(document: Any) -> Iterator[str]:  # noqa: ANN401  python-docx has no types for its parts
        for block in document.iter_inner_content():
            yield from _rows(block) if isinstance(block, Table) else [block.text]

    return _read(data, "docx", lambda stream: lines(Document(stream)))


def read_pptx(data: bytes) -> str:
    """Read the slides of a PowerPoint file, one after the other: text, tables, groups, and the speaker's notes."""
    try:
        from pptx import Presentation
    except ImportError as fault:
        raise MissingExtraError("curate", "Reading .pptx files") from fault

    def lines(presentation: Any) -> Iterator[str]:  # noqa: ANN401  python-pptx has no types for its parts
        for slide in presentation.slides:
            yield from _shapes(slide.shapes)
            if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
                yield slide.notes_slide.notes_text_frame.text
            yield ""

    return _read(data, "pptx", lambda stream: lines(Presentation(stream)))


def read_epub(data: bytes) -> PageText:
    """Read the chapters of an EPUB book in the order of its spine, with the date and the licence of its package.

    The format is EPUB 3 (and 2): `META-INF/container.xml` names the package, whose spine names the chapters.
    """
    stated: dict[str, str] = {}

    def chapters(stream: io.BytesIO) -> Iterator[str]:
        with zipfile.ZipFile(stream) as book:
            place = _parse(book, "META-INF/container.xml").find(".//{*}rootfile")
            if place is None:
                raise ValueError("it names no package")
            package = place.attrib["full-path"]
            root = _parse(book, package)
            stated.update({name: (node.text or "").strip() for name in ("date", "rights") for node in _dc(root, name)})
            names = {item.get("id"): unquote(item.get("href", "")) for item in root.iterfind(".//{*}manifest/{*}item")}
            spine = [names[item.get("idref")] for item in root.iterfind(".//{*}spine/{*}itemref")]
            paths = [posixpath.normpath(posixpath.join(posixpath.dirname(package), name)) for name in spine]
            _refuse_locked(book, paths)
            yield from (read_html(decode(book.read(path))).text for path in paths)

    return PageText(_read(data, "epub", chapters), stated.get("date") or None, stated.get("rights") or None)


def _parse(book: zipfile.ZipFile, name: str) -> ElementTree.Element:
    text = book.read(name)
    if b"<!ENTITY" in text:
        raise ValueError(f"{name} declares entities")
    return ElementTree.fromstring(text)


def _dc(root: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    """List the elements of that name of Dublin Core; later ones count less."""
    return root.findall(f".//{{http://purl.org/dc/elements/1.1/}}{name}")[::-1]


def _refuse_locked(book: zipfile.ZipFile, paths: list[str]) -> None:
    """Raise UnreadableError for chapters that are encrypted; obfuscated fonts do not matter."""
    if "META-INF/encryption.xml" not in book.namelist():
        return
    references = _parse(book, "META-INF/encryption.xml").iterfind(".//{*}CipherReference")
    if {unquote(reference.get("URI", "")) for reference in references} & set(paths):
        raise UnreadableError("corpus.locked-book", "the book's chapters are encrypted. Use one without protection.")


def _read(data: bytes, kind: str, lines: Any) -> str:  # noqa: ANN401  a function from a stream to lines
    """Join the lines of a file; raise UnreadableError for one that is locked, broken, too large or without text."""
    bounded_archive(io.BytesIO(data), len(data))
    try:
        text = "\n".join(lines(io.BytesIO(data)))
    except UnreadableError:
        raise
    except Exception as fault:  # the libraries raise any type of error; the caller names the file
        raise UnreadableError(
            "corpus.broken-office-file", f"the .{kind} file is broken ({type(fault).__name__}: {fault}). Save it again."
        ) from fault
    if not text.strip():
        raise UnreadableError("corpus.no-text", f"the .{kind} file holds no text, at most pictures of it. Run OCR.")
    return text.strip()


def _rows(table: Any) -> Iterator[str]:  # noqa: ANN401
    """Yield one line a row; a cell that is merged over several columns counts once."""
    for row in table.rows:
        cells: list[str] = []
        seen: set[int] = set()
        for cell in row.cells:
            if id(cell._tc) not in seen:
                seen.add(id(cell._tc))
                cells.append(" ".join(cell.text.split()))
        yield "\t".join(cells)


def _shapes(shapes: Iterable[Any]) -> Iterator[str]:
    """Yield the text of shapes in their order, those of groups included."""
    for shape in shapes:
        if hasattr(shape, "shapes"):
            yield from _shapes(shape.shapes)
        elif getattr(shape, "has_table", False) and shape.has_table:
            yield from _rows(shape.table)
        elif shape.has_text_frame:
            yield shape.text_frame.text.replace("\v", "\n")


SPARSE = 30
"""Least characters per page on average; a scan with a stamped page number has fewer."""
_BROKEN_WORD = re.compile(r"\b([A-Za-z]+)(-?)\n([a-z]+)\b")
_SEAM = re.compile(r"(?<=[ぁ-んァ-ヶー一-龥、，])\n(?=[ぁ-んァ-ヶー一-龥])")


_PAGE_WORDS = re.compile(r"\b(?:page|of|p|am|pm)\b|ページ|頁", re.IGNORECASE)
EDGE = 2
"""Lines at the top and at the bottom of a page that may be running heads and feet."""

UNKNOWN_SHARE = 0.01
"""Largest share of characters in fonts without a map to Unicode, such as the bullets of a list."""
_JIS = "medllm_jis_x_0208"
_CMAPS = {
    "cp932": "90ms-RKSJ 90msp-RKSJ",
    "shift_jis": "83pv-RKSJ 90pv-RKSJ Add-RKSJ Ext-RKSJ",
    "euc_jp": "EUC",
    _JIS: "Add Ext",
    "utf-16-be": "UniJIS-UTF16 UniJIS2004-UTF16 UniJISX0213-UTF16 UniKS-UTF16 UniGB-UTF16 UniCNS-UTF16",
    "utf-8": "UniJIS-UTF8 UniJIS2004-UTF8 UniKS-UTF8 UniGB-UTF8 UniCNS-UTF8",
    "utf-32-be": "UniJIS-UTF32 UniJIS2004-UTF32 UniKS-UTF32 UniGB-UTF32 UniCNS-UTF32",
    "euc_kr": "KSC-EUC",
    "cp949": "KSCms-UHC KSCms-UHC-HW",
    "gb2312": "GB-EUC GBpc-EUC",
    "gbk": "GBK-EUC",
    "gb18030": "GBK2K",
    "cp950": "ETen-B5 ETenms-B5",
    "big5": "B5pc",
    "big5hkscs": "HKscs-B5",
}
"""The predefined CMaps of PDF 1.7, table 118, by the codec that reads their codes; each has an H and a V form."""


@functools.cache
def known_cmaps() -> dict[str, str]:
    """Return the codec for each predefined CMap that a codec of Python reads, by its name in a PDF."""
    names = {f"/{name}-{way}": codec for codec, names in _CMAPS.items() for name in names.split() for way in "HV"}
    return {**names, "/H": _JIS, "/V": _JIS}


def _find_jis(name: str) -> codecs.CodecInfo | None:
    """Return a codec for JIS X 0208 without escapes, which Python lacks: it is EUC without the high bits."""

    def decode(data: Any, errors: str = "strict", /) -> tuple[str, int]:  # noqa: ANN401  any buffer
        codes = bytes(data)
        return bytes(code | 0x80 for code in codes).decode("euc_jp", errors), len(codes)

    def refuse(text: str, errors: str = "strict") -> tuple[bytes, int]:
        raise UnicodeError("nothing is written in this encoding")

    return codecs.CodecInfo(refuse, decode, name=_JIS) if name == _JIS else None


codecs.register(_find_jis)


def read_pdf(data: bytes) -> str:
    """Read the text of all pages, with the line breaks inside Japanese sentences removed.

    Raises UnreadableError for a locked, broken or scanned file, and for one whose codes have no known characters.
    """
    try:
        import pypdf
        from pypdf import _cmap
    except ImportError as fault:
        raise MissingExtraError("curate", "Reading PDFs") from fault
    _cmap._predefined_cmap.update(known_cmaps())  # pypdf reads codes of other CMaps as UTF-16, which gives random kanji
    logging.getLogger("pypdf").setLevel(logging.ERROR)
    try:
        reader = pypdf.PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise UnreadableError("corpus.locked-pdf", "it needs a password. Save it without one.")
        unknown = _Unknown()
        pages = [page.extract_text(visitor_text=unknown.count) for page in reader.pages]
    except UnreadableError:
        raise
    except Exception as fault:  # pypdf raises any type of error; the caller names the file
        raise UnreadableError(
            "corpus.broken-pdf", f"the PDF is broken ({type(fault).__name__}: {fault}). Save it again."
        ) from fault
    held = sum(len(page.split()) and len("".join(page.split())) for page in pages)
    if held < SPARSE * len(pages) or not pages:
        raise UnreadableError(
            "corpus.scanned-pdf",
            f"{len(pages)} pages hold {held} characters. Run OCR, check its output, and use that text.",
        )
    unknown.refuse("".join(pages))
    return join_words(_SEAM.sub("", "\n\n".join(without_running_lines(pages))))


def join_words(text: str) -> str:
    r"""Join Latin words that a line break divides.

    A hyphen at the end of a line is removed, unless the same word has it inside a line. Without a hyphen two parts are
    one word where the text has that word inside a line and has not both parts as words of their own.

    >>> join_words("lipoid nephro-\nsis")
    'lipoid nephrosis'
    >>> join_words("nephrosis, neph\nrosis and the\nkidney")
    'nephrosis, nephrosis and the\nkidney'
    """
    words = set(re.findall(r"[a-z]+(?:-[a-z]+)*", _BROKEN_WORD.sub(" ", text).lower()))

    def joined(match: re.Match[str]) -> str:
        first, hyphen, last = match.groups()
        if hyphen:
            return f"{first}-{last}" if f"{first}-{last}".lower() in words else first + last
        whole = (first + last).lower()
        return first + last if whole in words and not {first.lower(), last} <= words else match.group()

    return _BROKEN_WORD.sub(joined, text)


def without_running_lines(pages: list[str]) -> list[str]:
    """Remove running heads, feet and page numbers: lines at the edge of a page that recur on most pages.

    A line that changes its digits from page to page goes only if it is a page number or an address with a date, so
    that numbered questions and chapters stay. The only line of a page stays too.
    """
    cut = [[line for line in page.split("\n") if line.strip()] for page in pages]
    counts: Counter[str] = Counter()
    for lines in cut:
        counts.update({_form(line) for line in (*lines[:EDGE], *lines[-EDGE:])})
    least = max(3, len(pages) // 2 + 1)
    running = {form for form, count in counts.items() if count >= least}
    return [
        _trimmed(lines, running) if running and len(lines) > 1 else page for lines, page in zip(cut, pages, strict=True)
    ]


def _trimmed(lines: list[str], running: set[str]) -> str:
    last = len(lines) - EDGE
    return "\n".join(line for at, line in enumerate(lines) if EDGE <= at < last or _form(line) not in running)


def _form(line: str) -> str:
    """Reduce a line to what recurs: without its digits where it is a page number or an address, else as it is."""
    plain = " ".join(line.split())
    words = _PAGE_WORDS.sub("", plain)
    numbered = "://" in plain or not any(character.isalpha() for character in words)
    return re.sub(r"[0-9０-９]+", "#", plain) if numbered else plain


class _Unknown:
    """Counter of the characters whose font has no map to Unicode."""

    def __init__(self) -> None:
        self.fonts: dict[str, int] = {}
        self.all = 0

    def count(self, text: str, cm: object, tm: object, font: dict[str, Any] | None, size: object) -> None:
        """Count one piece of text and the font it is drawn in."""
        characters = len("".join(text.split()))
        self.all += characters
        if font is not None and not _is_readable(font):
            name = f"{font.get('/BaseFont', '?')} ({font.get('/Encoding', 'no encoding')})".replace("/", "")
            self.fonts[name[:80]] = self.fonts.get(name[:80], 0) + characters

    def refuse(self, text: str) -> None:
        """Raise UnreadableError when more than a few characters are guesses, or could not be decoded."""
        if sum(self.fonts.values()) > UNKNOWN_SHARE * self.all:
            name = max(self.fonts, key=lambda font: self.fonts[font])
            raise UnreadableError(
                "corpus.unmapped-pdf",
                f"the font {name} does not map its codes to characters. Save the PDF again "
                "with its text searchable, or run OCR on it.",
            )
        undecoded = sum(char == "\ufffd" or "\ue000" <= char <= "\uf8ff" for char in text)
        if undecoded > UNKNOWN_SHARE * self.all:
            raise UnreadableError(
                "corpus.unmapped-pdf",
                f"{undecoded} of {self.all} characters have codes that their encoding does "
                "not have. Save the PDF again with its text searchable, or run OCR on it.",
            )


def _is_readable(font: dict[str, Any]) -> bool:
    """Return whether a font has a map to Unicode, one byte a character, or codes of a CMap that a codec reads."""
    if "/ToUnicode" in font or font.get("/Subtype") != "/Type0":
        return True
    encoding = str(font.get("/Encoding", ""))
    return encoding in known_cmaps() or "-UCS2-" in encoding
