"""Quality filters and the reason for each dropped text: too short, not Japanese, garbled, repeated or boilerplate."""

import functools
import re
from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medllm.corpus.decontaminate.ngrams import LAST

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
