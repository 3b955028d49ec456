"""Raw files: opened with a limit on their unpacked size, and their bytes decoded to text or refused by name."""

import codecs
import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, cast

from medllm.corpus.documents import UnreadableError

LARGEST = 64 * 1024 * 1024
"""Maximum bytes of one document: a line, a page, a PDF."""
RATIO = 200
"""Limit on unpacked to packed size: text packs to a fifth or a tenth, a file that grows two hundredfold is a bomb."""
GRACE = 16 * 1024 * 1024


class _Guarded(io.RawIOBase):
    """A stream that raises an error when far more bytes come out than went in."""

    def __init__(self, stream: BinaryIO, packed: int) -> None:
        self._stream = stream
        self._bound = max(GRACE, packed * RATIO)
        self._out = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        data = self._stream.read(len(view))
        view[: len(data)] = data
        self._out += len(data)
        if self._out > self._bound:
            raise UnreadableError(
                "corpus.archive-bomb", f"it unpacks to more than {self._bound:,} bytes. Unpack it by hand and check it."
            )
        return len(data)


def open_bytes(path: Path) -> BinaryIO:
    """Open the bytes of a file, unpacked when its name ends in .gz."""
    if path.suffix != ".gz":
        return path.open("rb")
    return cast(BinaryIO, io.BufferedReader(_Guarded(cast(BinaryIO, gzip.open(path)), path.stat().st_size), 1 << 16))


def bounded_archive(stream: BinaryIO, packed: int) -> None:
    """Unpack every file of a zip archive within the limits and throw it away; one that breaks them is refused.

    For libraries that open an archive themselves, without limits. A file states its size, so its bytes are counted.
    """
    try:
        with zipfile.ZipFile(stream) as archive:
            left = max(GRACE, packed * RATIO)
            for info in archive.infolist():
                with archive.open(info) as inner:
                    while data := inner.read(1 << 20):
                        left -= len(data)
                        if left < 0:
                            raise UnreadableError(
                                "corpus.archive-bomb",
                                f"{info.filename} unpacks to far more than the file holds. Unpack it and check it.",
                            )
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, zlib.error) as fault:
        raise UnreadableError(
            "corpus.broken-archive", f"the file is broken, locked or of an old format ({fault}). Save it again."
        ) from None


def members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of each file in a zip archive, none larger than a document may be."""
    try:
        with zipfile.ZipFile(path) as archive:
            whole = sum(info.file_size for info in archive.infolist())
            if whole > max(GRACE, path.stat().st_size * RATIO):
                raise UnreadableError(
                    "corpus.archive-bomb",
                    f"its files have {whole:,} bytes by its own account. Unpack it by hand and check it.",
                )
            for info in archive.infolist():
                if info.is_dir():
                    continue
                if info.file_size > LARGEST:
                    raise UnreadableError(
                        "corpus.too-large", f"{info.filename} has {info.file_size:,} bytes. Unpack the archive first."
                    )
                with archive.open(info) as stream:
                    data = stream.read(LARGEST + 1)
                if len(data) > info.file_size:
                    raise UnreadableError(
                        "corpus.archive-bomb",
                        f"{info.filename} is larger than the archive states. Unpack it by hand and check it.",
                    )
                yield info.filename, data
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as fault:
        raise UnreadableError("corpus.broken-archive", f"the archive is broken ({fault}). Pack it again.") from None


_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LEGACY = ("cp932", "euc_jp", "euc_jis_2004")
"""The last for files with signs like ① in EUC, which the codec before it does not know."""
_ESCAPED = ("iso2022_jp", "iso2022_jp_2004", "iso2022_jp_ext")
_KANA = re.compile(r"[ぁ-んァ-ヶー、。]")
_ODD = re.compile(r"[｡-ﾟ\x80-\x9f\ue000-\uf8ff]")
_FOREIGN = re.compile(r"[^\x00-\x7f]+")
_HALF_WIDTH_EUC = re.compile(rb"[\x00-\x7f]*(?:(?:\x8e[\xa1-\xdf]){3,}[\x00-\x7f]*)+")
_HALF_WIDTH_IN_WORD = re.compile(r"(?<=[A-Za-z])[｡-ﾟ]|[｡-ﾟ](?=[A-Za-z])")
_WESTERN = re.compile(r"[À-ÖØ-öø-ÿŒœŠšŽžŸ°µ±×÷²³¹¼½¾·®©™–—‘’“”•…€£§«»ºª†‡‰\xa0]")
_WRONG_PLACE = re.compile(
    r"[“‘«(\[]?[A-Za-z]?[\u00c0-\u00de][a-z]*[\u00c0-\u00de]|"  # capitals with accents inside a word
    r"(?<![\w)\]\d])[°²³¹ºª](?![A-Za-z\d ])|[°±×÷µ§]{2}|(?<=\s)[”’](?=\w\w)|(?<=\w)[“](?=\w)"
)
WIDE = ("utf-16", "utf-16-le", "utf-16-be", "utf-32")
"""Encodings whose line break is more than one byte, so that lines cannot be cut before decoding."""

SAMPLE = 65536


def name_encoding(data: bytes) -> str:
    """Return the encoding of the first bytes of a file.

    >>> name_encoding("発熱を認める。".encode("cp932")), name_encoding("発熱を認める。".encode("euc_jp"))
    ('cp932', 'euc_jp')
    """
    sample, whole = data[:SAMPLE], len(data) <= SAMPLE
    for bom, encoding in _BOMS:
        if sample.startswith(bom):
            return encoding
    if _decodes(sample, "utf-8", whole) and b"\0" not in sample:
        return _seven_bit(sample) if b"\x1b" in sample else "utf-8"
    wide = [code for code in ("utf-16-le", "utf-16-be") if len(data) % 2 == 0 and _decodes(sample, code, whole)]
    if b"\0" in sample:
        if plain := [code for code in wide if _strange(sample, code) < 0.05]:
            return max(plain, key=lambda encoding: _kana(sample, encoding) + _ascii(sample, encoding))
        raise UnreadableError(
            "corpus.not-text",
            "it holds zero bytes, so it is a binary file or UTF-16 without a byte-order mark. Convert it to UTF-8.",
        )
    if _is_broken_utf8(sample):
        return "utf-8"
    possible = [code for code in _LEGACY if _decodes(sample, code, whole) and _private(sample, code) < 0.02]
    possible = [code for code in possible if code != "euc_jis_2004" or _kana(sample, code) > 0.1]
    possible += [code for code in wide if _kana(sample, code) > 0.2 and not _strange(sample, code)]
    # Each of these reads much of the others' bytes without complaint; only one of the readings has kana in it.
    best = max(possible, key=lambda encoding: _kana(sample, encoding) - _strange(sample, encoding), default=None)
    if "euc_jp" in possible and _HALF_WIDTH_EUC.fullmatch(sample):
        best = "euc_jp"
    text = sample.decode(best, "ignore") if best else ""
    if best and _is_japanese(text):
        return best
    if _is_western(sample):
        return "cp1252"
    if best and len(text) < 20 and all(_is_common(char) for run in _FOREIGN.findall(text) for char in run):
        return best
    raise UnreadableError(
        "corpus.unknown-encoding",
        "it is neither UTF-8, UTF-16, Shift_JIS, EUC-JP nor ISO-2022-JP, and not certainly "
        "Windows-1252. Convert it to UTF-8.",
    )


def _seven_bit(sample: bytes) -> str:
    """Return the encoding of a text that switches alphabets by escapes; one without such escapes is UTF-8."""
    if not re.search(rb"\x1b[$(][A-Za-z@]", sample):
        return "utf-8"
    for encoding in _ESCAPED:
        if _decodes(sample, encoding, False):
            return encoding
    raise UnreadableError(
        "corpus.unknown-encoding", "it switches alphabets by escapes, but is not ISO-2022-JP. Convert it to UTF-8."
    )


def _is_broken_utf8(sample: bytes) -> bool:
    """Return whether nearly all bytes are UTF-8: a few broken bytes do not make another encoding."""
    text = sample.decode("utf-8", "replace")
    broken = text.count("\ufffd")
    return sum(char > "\u07ff" for char in text) - broken > 10 * broken


def _is_japanese(text: str) -> bool:
    """Return whether a reading as Japanese makes sense: kana or runs of common kanji, not single signs in words.

    Windows' Shift_JIS and EUC-JP find some Japanese character for nearly every byte of a Western text.
    """
    runs = _FOREIGN.findall(text)
    total = sum(map(len, runs))
    kana = sum(len(_KANA.findall(run)) for run in runs)
    together = sum(len(run) for run in runs if len(run) > 1)
    if max(together, kana) < 0.5 * total:
        return False
    half_width = sum("｡" <= char <= "ﾟ" for run in runs for char in run)
    if 2 * len(_HALF_WIDTH_IN_WORD.findall(text)) > half_width:
        return False
    common = sum(_is_common(char) for run in runs for char in run)
    if total < 20:
        return kana > 0 or 2 * max(common, half_width) >= total
    return kana >= 0.02 * total or common >= 0.9 * total or half_width >= 0.9 * total


def _is_common(character: str) -> bool:
    """Return whether a character is one of the 2,965 kanji of level 1, or of the signs and letters of JIS X 0208."""
    try:
        return 0xA1 <= character.encode("euc_jp")[0] <= 0xCF
    except UnicodeEncodeError:
        return False


def _is_western(sample: bytes) -> bool:
    """Return whether it reads as Windows-1252 with letters and signs where Western texts have them."""
    if not _decodes(sample, "cp1252"):
        return False
    text = sample.decode("cp1252", "ignore")
    foreign = "".join(_FOREIGN.findall(text))
    if len(_WESTERN.findall(foreign)) < len(foreign) or _WRONG_PLACE.search(text):
        return False
    return sum(len(run) for run in _FOREIGN.findall(text) if len(run) > 2) <= 0.1 * len(foreign)


def is_wide(path: Path) -> bool:
    """Return whether a file is in one of the encodings whose lines cannot be cut."""
    with path.open("rb") as stream, suppress(UnreadableError):
        return name_encoding(stream.read(SAMPLE)) in WIDE
    return False


def decode(data: bytes) -> str:
    """Decode a whole file; an error names the first byte that is not text."""
    encoding = name_encoding(data)
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as fault:
        raise UnreadableError(
            "corpus.broken-encoding",
            f"it begins as {encoding}, but byte {fault.start} is not {encoding}. Save it as UTF-8.",
        ) from None


def _decodes(sample: bytes, encoding: str, whole: bool = False) -> bool:
    """Whether these bytes are of the encoding; unless they are the whole text, a character may be cut at their end."""
    try:
        codecs.getincrementaldecoder(encoding)().decode(sample, whole)
    except UnicodeDecodeError:
        return False
    return True


def _private(sample: bytes, encoding: str) -> float:
    """The share of characters that no Japanese text has: Windows' Shift_JIS finds a private one for any stray byte."""
    text = sample.decode(encoding, "ignore")
    return sum("\ue000" <= char <= "\uf8ff" or "\x80" <= char <= "\x9f" for char in text) / max(len(text), 1)


def _ascii(sample: bytes, encoding: str) -> float:
    text = sample.decode(encoding, "ignore")
    return sum(char.isascii() for char in text) / max(len(text), 1)


def _kana(sample: bytes, encoding: str) -> float:
    text = sample.decode(encoding, "ignore")
    return len(_KANA.findall(text)) / max(len(text), 1)


def _strange(sample: bytes, encoding: str) -> float:
    text = sample.decode(encoding, "ignore")
    return (len(_ODD.findall(text)) + sum(ord(char) < 32 and char not in "\t\r\n" for char in text)) / max(len(text), 1)
