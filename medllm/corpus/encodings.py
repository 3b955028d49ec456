"""Bytes to text: UTF-8, UTF-16, Shift_JIS, EUC-JP and ISO-2022-JP are recognised, the rest is refused by name."""

import codecs
import re
from contextlib import suppress
from pathlib import Path

from medllm.corpus.faults import Unreadable

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LEGACY = ("cp932", "euc_jp")
_KANA = re.compile(r"[ぁ-んァ-ヶー、。]")
_ODD = re.compile(r"[｡-ﾟ\x80-\x9f\ue000-\uf8ff]")
WIDE = ("utf-16", "utf-16-le", "utf-16-be", "utf-32")
"""Encodings in which a line break is more than one byte, so that lines cannot be cut before decoding."""

SAMPLE = 65536


def name_encoding(data: bytes) -> str:
    """The encoding that the first bytes of a file are in.

    >>> name_encoding("発熱を認める。".encode("cp932")), name_encoding("発熱を認める。".encode("euc_jp"))
    ('cp932', 'euc_jp')
    """
    sample = data[:SAMPLE]
    for bom, encoding in _BOMS:
        if sample.startswith(bom):
            return encoding
    if _decodes(sample, "utf-8") and b"\0" not in sample:
        return "iso2022_jp" if b"\x1b$" in sample and _decodes(sample, "iso2022_jp") else "utf-8"
    if b"\0" in sample:
        for encoding in ("utf-16-le", "utf-16-be"):
            if _decodes(sample, encoding) and _strange(sample, encoding) < 0.05:
                return encoding
        raise Unreadable("not_text: it holds zero bytes, so it is a binary file or UTF-16 without its mark.")
    possible = [one for one in _LEGACY if _decodes(sample, one) and _private(sample, one) < 0.02]
    if not possible:
        raise Unreadable(
            "unknown_encoding: neither UTF-8, UTF-16, Shift_JIS, EUC-JP nor ISO-2022-JP. Convert it to UTF-8."
        )
    # Each of the two reads much of the other's bytes without complaint; only one of the readings has kana in it.
    return max(possible, key=lambda encoding: _kana(sample, encoding) - _strange(sample, encoding))


def is_wide(path: Path) -> bool:
    """Whether a file is in one of the encodings whose lines cannot be cut."""
    with path.open("rb") as stream, suppress(Unreadable):
        return name_encoding(stream.read(SAMPLE)) in WIDE
    return False


def decode(data: bytes) -> str:
    """The text of a whole file; a fault names the byte at which it stops being text."""
    encoding = name_encoding(data)
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as fault:
        raise Unreadable(
            f"broken_encoding: it begins as {encoding}, but byte {fault.start} does not belong there."
        ) from None


def _decodes(sample: bytes, encoding: str) -> bool:
    try:
        codecs.getincrementaldecoder(encoding)().decode(sample)
    except UnicodeDecodeError:
        return False
    return True


def _private(sample: bytes, encoding: str) -> float:
    """The share of characters that no Japanese text has: Windows' Shift_JIS finds a private one for any stray byte."""
    text = sample.decode(encoding, "ignore")
    return sum("\ue000" <= one <= "\uf8ff" or "\x80" <= one <= "\x9f" for one in text) / max(len(text), 1)


def _kana(sample: bytes, encoding: str) -> float:
    text = sample.decode(encoding, "ignore")
    return len(_KANA.findall(text)) / max(len(text), 1)


def _strange(sample: bytes, encoding: str) -> float:
    text = sample.decode(encoding, "ignore")
    return (len(_ODD.findall(text)) + sum(ord(one) < 32 and one not in "\t\r\n" for one in text)) / max(len(text), 1)
