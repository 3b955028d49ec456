"""Cleaning: one spelling for each character, lines without boilerplate, and the reason for each dropped text."""

import functools
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medllm.corpus.decontaminate.ngrams import LAST

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
    text = _NUMBER.sub(lambda match: "." if match[0] == "．" else ",", text)
    return _EDGES.sub("\n", _BLANK.sub("\n\n", _SPACES.sub(" ", text))).strip()


def _composed(text: str) -> str:
    """Convert to NFC only the characters that may change: a few per cent of the text, which saves most of the time."""
    parts, at = [], 0
    for mark in _LOOSE.finditer(text):
        begin = max(mark.start() - 1, 0)
        parts += [text[at:begin], unicodedata.normalize("NFC", text[begin : mark.end()])]
        at = mark.end()
    return "".join((*parts, text[at:]))


def _written(match: re.Match[str]) -> str:
    character = match[0]
    if len(character) == 1:
        return _plain()[character]
    return _voiced_kana(unicodedata.normalize("NFKC", character[0]), character[1])


def _voiced(match: re.Match[str]) -> str:
    return _voiced_kana(match[1], match[2])


def _voiced_kana(kana: str, mark: str) -> str:
    """Join a kana and its voiced mark, of any width, into one kana; where there is none, the mark follows as a sign."""
    combining, sign = ("\u3099", "゛") if mark in "ﾞ゛\u3099" else ("\u309a", "゜")
    composed = unicodedata.normalize("NFC", kana + combining)
    return composed if len(composed) == 1 else kana + sign


_GARBLED = re.compile(r"[ãâå][\x80-\xbf\u2018-\u203a]|[縺繧繝][^\s\w]?|\(cid:\d+\)")
"""Signs of UTF-8 read as Latin-1 or as Shift_JIS, and of text from a PDF without a character table."""

_KANA, _KANJI, _LETTER, _BROKEN = 1, 2, 3, 4


@functools.cache
def _classes() -> npt.NDArray[np.uint8]:
    """Return the class of each character, so that a text is counted in one pass."""
    table = np.zeros(0x110000, np.uint8)
    table[:LAST] = [_LETTER if chr(code).isalpha() else 0 for code in range(LAST)]
    table[0x3041:0x3100] = _KANA
    table[0x4E00:0xA000] = _KANJI
    table[0x3005:0x3007] = _KANJI
    table[0xE000:0xF900] = _BROKEN
    table[0xFFFD] = _BROKEN
    return table


_NOTICE = re.compile(r"(?:Cookie|クッキー).{0,20}(?:使用|利用|同意|設定)|JavaScript.{0,20}(?:有効|オン)", re.IGNORECASE)
_MENU = re.compile(
    r"(?:ログイン|会員登録|新規登録|お問い合わせ|サイトマップ|"
    r"プライバシーポリシー|利用規約|トップページ|ホーム|続きを読む|もっと見る|前へ|次へ|ページの先頭へ|メニュー|検索|シェア(?:する)?|ツイート|"
    r"印刷|閉じる|一覧(?:へ|に戻る)|関連(?:記事|リンク)|この記事を.{0,10}|Copyright\b.*|©.*|All Rights Reserved\.?)",
    re.IGNORECASE,
)
RUN = 20
"""Characters of a run that counts as repeated when it occurs again."""


@dataclass(frozen=True)
class FilterLimits:
    """Limits of the quality filters, from the recipe."""

    min_chars: int = 50
    min_japanese_share: float = 0.0
    max_repetition: float = 0.3
    max_chars: int = 2_000_000


def without_boilerplate(text: str) -> tuple[str, int]:
    """Remove lines of menus, cookie notices and copyright; return the text and how many characters they had."""
    notices = bool(_NOTICE_HINT.search(text))
    if not notices and not _MENU_HINT.search(text):
        return text, 0
    lines = text.split("\n")
    kept = [line for line in lines if not _boilerplate(line.strip(), notices)]
    if len(kept) == len(lines):
        return text.strip(), 0
    written = "\n".join(kept).strip()
    return written, len(text) - len(written)


def _boilerplate(line: str, notices: bool) -> bool:
    return bool(_MENU.fullmatch(line) or (notices and _NOTICE.search(line)))


# The lines of a text are checked one by one only if the text contains one of these.
_NOTICE_HINT = re.compile(r"クッキー|[CcJj](?i:ookie|avascript)")
_MENU_HINT = re.compile(
    r"(?:^|\n)\s*(?:(?:ログイン|会員登録|新規登録|お問い合わせ|サイトマップ|プライバシー|利用規約|トップ|ホーム|続きを|もっと見る|前へ|次へ|ページ|メニュー|検索|"
    r"シェア|ツイート|印刷|閉じる|一覧|関連|この記事|©)|[Cc](?i:opyright)|[Aa](?i:ll rights))"
)


def drop_reason(text: str, limits: FilterLimits, removed: int = 0) -> str | None:
    """Return why this text is dropped, with the figure that decided it, or None when it is kept."""
    length = len(text)
    if length < limits.min_chars:
        return f"boilerplate: {removed} of {length + removed} characters" if removed > length else f"short: {length}"
    if length > limits.max_chars:
        return f"long: {length}"
    if removed > length:
        return f"boilerplate: {removed} of {length + removed} characters"
    kinds = _kinds(text)
    broken = (kinds[_BROKEN] + sum(map(len, _GARBLED.findall(text)))) / length
    if broken > 0.02:
        return f"garbled: {broken:.2f}"
    letters = max(kinds[_KANA] + kinds[_KANJI] + kinds[_LETTER], 1)
    share = (kinds[_KANA] + kinds[_KANJI]) / letters
    if share < limits.min_japanese_share:
        return f"not_japanese: {share:.2f}"
    # Chinese is all kanji: two hundred letters without a kana are not Japanese, or they are a list of names.
    if limits.min_japanese_share and letters >= 200 and kinds[_KANA] < 0.01 * letters:
        return f"no_kana: {kinds[_KANA]} of {letters}"
    repeated = repetition(text)
    return f"repetition: {repeated:.2f}" if repeated > limits.max_repetition else None


def _kinds(text: str) -> list[int]:
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.dtype("<u4"))
    counted: list[int] = np.bincount(_classes()[codes], minlength=5).tolist()
    return counted


def repetition(text: str) -> float:
    """Return the share of characters in lines that occurred before, or in runs of twenty that occurred before.

    Sentences are no safe unit in text from PDFs, so runs are taken at every twentieth character: they show a text that
    repeats with any period, because there are no more different runs than characters in the period.
    """
    lines = [line for line in text.split("\n") if line]
    seen = Counter(lines)
    repeated = (
        sum((count - 1) * len(line) for line, count in seen.items()) / max(len(text), 1) if len(lines) > 1 else 0.0
    )
    taken = (len(text) - RUN) // RUN + 1
    if taken < 4:
        return repeated
    runs = {text[place : place + RUN] for place in range(0, taken * RUN, RUN)}
    return max(repeated, 1 - len(runs) / taken)
