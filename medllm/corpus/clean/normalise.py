"""One spelling for each character without a change of meaning: NFKC only where it is safe."""

import functools
import re
import unicodedata

# 10⁶ must not become 106, ½ not 1⁄2 after a 1, ① not 1; ㎡ would lose its power.
_POWERS = re.compile(r"[a-zA-Zμ]\d")
_ZERO_WIDTH = re.compile(
    "[\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\U000e0100-\U000e01ef]"
)
"""Invisible marks, and the selectors that choose one of several shapes of a kanji."""
_BREAKS = re.compile("\r\n|[\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
"""Characters by which Unicode, PowerPoint, Word and printers separate lines, pages and records."""
_CONTROL_IN_NUMBER = re.compile(r"(?<=[0-9A-Za-z])[\x00-\x08\x0e-\x1f\x7f-\x9f]+(?=[0-9A-Za-z])")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f]")
_SPACES = re.compile(r"[ \t\u00a0\u2000-\u200a\u202f\u205f\u3000]+")
_BLANK = re.compile(r" *\n(?: *\n)+")
_EDGES = re.compile(r" *\n *")
# Full stop and comma of full width separate the digits of a number; between words they are punctuation and stay.
_NUMBER = re.compile(r"(?<=[0-9])[．，](?=[0-9])")


# Characters that never compose with one before them: between two of these a text may be cut.
_CUT = (
    "\x00-\u02ff\u0391-\u03a9\u03b1-\u03c9\u2010-\u2027\u2030-\u205e\u2103\u2116\u2150-\u2328\u2460-\u27ff"
    "\u3000-\u3029\u3030-\u3098\u309b-\u30ff\u3200-\u9fff\uff01-\uffee"
)
_LOOSE = re.compile(f"[^{_CUT}]+")


_RADICALS = (
    "⺟⺠⺩⺁⺝⺒⺻⺽⺬⻁⻄⻆⻑⻗⻘⻝⻣⻤⻨⻩⻫⻭⻯⻱⻲⻰⻳⻢⻦⻥⻔⻋⻉⻅⻃⺶⺮",
    "母民王厂月巳聿臼示虎西角長雨青食骨鬼麦黄斉歯竜龜亀龙龟马鸟鱼门车贝见覀羊竹",
)
"""Radicals that PDFs write for the kanji of the same shape; no compatibility form maps them to that kanji."""
_VOICED = re.compile(r"([ぁ-ゖァ-ヺ])([ﾞﾟ゛゜])")


@functools.cache
def _plain() -> dict[str, str]:
    """Map characters with another width or a compatibility form to the characters that replace them."""
    table = {}
    ranges = (
        (0xFF10, 0xFF5B),
        (0xFF61, 0xFFA0),
        (0x2160, 0x2180),
        (0x2E80, 0x2FE0),
        (0x3300, 0x3400),
        (0xFB00, 0xFB07),
    )
    for code in (code for begin, end in ranges for code in range(begin, end)):
        character = chr(code)
        plain = unicodedata.normalize("NFKC", character)
        if plain != character and not _POWERS.search(plain) and (code < 0xFF00 or code > 0xFF60 or plain.isalnum()):
            table[character] = plain
    table |= {
        "％": "%",
        "＋": "+",
        "＝": "=",
        "＜": "<",
        "＞": ">",
        "～": "〜",
        "\u00b5": "μ",
        **dict(zip(*_RADICALS, strict=True)),
        "\u2126": "Ω",
        "℃": "°C",
        "ﾞ": "゛",
        "ﾟ": "゜",
    }
    return table


@functools.cache
def _pattern() -> re.Pattern[str]:
    # A half-width kana takes its voiced mark along, so that ｶﾞ is matched as one.
    return re.compile("[ｦ-ﾝ][ﾞﾟ゛゜\u3099\u309a]|[ぁ-ゖァ-ヺ][ﾞﾟ]|[" + re.escape("".join(_plain())) + "]")


def normalise(text: str) -> str:
    """Give letters, digits and kana one width; remove invisible characters and stray spaces.

    >>> normalise("ｶﾞﾝﾏｰＧＴＰ　１２．５ ㎎／日、10⁶個、5㎡")
    'ガンマーGTP 12.5 mg／日、10⁶個、5㎡'
    """
    text = _ZERO_WIDTH.sub("", _BREAKS.sub("\n", text))
    text = _CONTROL.sub("", _CONTROL_IN_NUMBER.sub(" ", text))
    text = _composed(text)
    text = _pattern().sub(_written, text)
    text = _VOICED.sub(_voiced, text)
    text = _NUMBER.sub(lambda found: "." if found[0] == "．" else ",", text)
    return _EDGES.sub("\n", _BLANK.sub("\n\n", _SPACES.sub(" ", text))).strip()


def _composed(text: str) -> str:
    """Convert to NFC only the characters that may change: a few per cent of the text, which saves most of the time."""
    parts, at = [], 0
    for found in _LOOSE.finditer(text):
        begin = max(found.start() - 1, 0)
        parts += [text[at:begin], unicodedata.normalize("NFC", text[begin : found.end()])]
        at = found.end()
    return "".join((*parts, text[at:]))


def _written(found: re.Match[str]) -> str:
    one = found[0]
    if len(one) == 1:
        return _plain()[one]
    return _voiced_kana(unicodedata.normalize("NFKC", one[0]), one[1])


def _voiced(found: re.Match[str]) -> str:
    return _voiced_kana(found[1], found[2])


def _voiced_kana(kana: str, mark: str) -> str:
    """Join a kana and its voiced mark, of any width, into one kana; where there is none, the mark follows as a sign."""
    combining, sign = ("\u3099", "゛") if mark in "ﾞ゛\u3099" else ("\u309a", "゜")
    one = unicodedata.normalize("NFC", kana + combining)
    return one if len(one) == 1 else kana + sign
