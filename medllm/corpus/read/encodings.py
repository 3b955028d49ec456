"""Bytes to text: UTF-8, UTF-16, Shift_JIS, EUC-JP, ISO-2022-JP and Windows-1252; the rest is refused by name."""

import codecs
import re
from contextlib import suppress
from pathlib import Path

from medllm.corpus.errors import UnreadableError

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
    wide = [one for one in ("utf-16-le", "utf-16-be") if len(data) % 2 == 0 and _decodes(sample, one, whole)]
    if b"\0" in sample:
        if plain := [one for one in wide if _strange(sample, one) < 0.05]:
            return max(plain, key=lambda encoding: _kana(sample, encoding) + _ascii(sample, encoding))
        raise UnreadableError(
            "corpus.not-text",
            "it holds zero bytes, so it is a binary file or UTF-16 without a byte-order mark. Convert it to UTF-8.",
        )
    if _is_broken_utf8(sample):
        return "utf-8"
    possible = [one for one in _LEGACY if _decodes(sample, one, whole) and _private(sample, one) < 0.02]
    possible = [one for one in possible if one != "euc_jis_2004" or _kana(sample, one) > 0.1]
    possible += [one for one in wide if _kana(sample, one) > 0.2 and not _strange(sample, one)]
    # Each of these reads much of the others' bytes without complaint; only one of the readings has kana in it.
    best = max(possible, key=lambda encoding: _kana(sample, encoding) - _strange(sample, encoding), default=None)
    if "euc_jp" in possible and _HALF_WIDTH_EUC.fullmatch(sample):
        best = "euc_jp"
    text = sample.decode(best, "ignore") if best else ""
    if best and _is_japanese(text):
        return best
    if _is_western(sample):
        return "cp1252"
    if best and len(text) < 20 and all(_is_common(one) for run in _FOREIGN.findall(text) for one in run):
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
    return sum(one > "\u07ff" for one in text) - broken > 10 * broken


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
    half_width = sum("｡" <= one <= "ﾟ" for run in runs for one in run)
    if 2 * len(_HALF_WIDTH_IN_WORD.findall(text)) > half_width:
        return False
    common = sum(_is_common(one) for run in runs for one in run)
    if total < 20:
        return kana > 0 or 2 * max(common, half_width) >= total
    return kana >= 0.02 * total or common >= 0.9 * total or half_width >= 0.9 * total


def _is_common(one: str) -> bool:
    """Return whether a character is one of the 2,965 kanji of level 1, or of the signs and letters of JIS X 0208."""
    try:
        return 0xA1 <= one.encode("euc_jp")[0] <= 0xCF
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
    return sum("\ue000" <= one <= "\uf8ff" or "\x80" <= one <= "\x9f" for one in text) / max(len(text), 1)


def _ascii(sample: bytes, encoding: str) -> float:
    text = sample.decode(encoding, "ignore")
    return sum(one.isascii() for one in text) / max(len(text), 1)


def _kana(sample: bytes, encoding: str) -> float:
    text = sample.decode(encoding, "ignore")
    return len(_KANA.findall(text)) / max(len(text), 1)


def _strange(sample: bytes, encoding: str) -> float:
    text = sample.decode(encoding, "ignore")
    return (len(_ODD.findall(text)) + sum(ord(one) < 32 and one not in "\t\r\n" for one in text)) / max(len(text), 1)
