"""Reads a question's choices and its key as people write them: in columns, in one cell, numbers, letters, kana."""

import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from medllm.exam.question import LETTERS, write_answer
from medllm.exam_import.sheet import cell_text

_SERIES = (
    "abcdefgh", "ABCDEFGH", "ａｂｃｄｅｆｇｈ", "12345678", "１２３４５６７８", "①②③④⑤⑥⑦⑧",
    "アイウエオカキク", "あいうえおかきく", "イロハニホヘトチ",
)  # fmt: skip
_ANSWER_CELLS = re.compile(r"解答[：:][\s\d,]*①")
"""Circled numbers that are the boxes of a numeric answer, as 解答：①.② g/日, and label no choices."""
_SEPARATORS = ("\n", "｜", "|", "；", ";", "\t", "／")


class ChoicesFault(ValueError):
    """Choices that cannot be separated; the text names cause and remedy without the place."""


def choices_of(cells: Sequence[Any], *, labelled: bool = True) -> list[str]:
    """Return the choices of a row: one a cell, or all in a single cell.

    Labels that run in order are dropped; in cells of their own only if the table is `labelled`.

    Raises:
        ChoicesFault: A cell between two choices is empty.

    >>> choices_of(["a. 肺炎", "b. 胃炎", None])
    ['肺炎', '胃炎']
    >>> choices_of(["① 肺炎 ② 胃炎"]), choices_of(["肺炎；胃炎"])
    (['肺炎', '胃炎'], ['肺炎', '胃炎'])
    """
    if len(cells) == 1:
        return _from_one(cells[0])
    texts = [cell_text(cell) for cell in cells]
    while texts and not texts[-1]:
        texts.pop()
    if not all(texts):
        empty = texts.index("") + 1
        raise ChoicesFault(f"choice {empty} is empty, but choice {len(texts)} is not. Fill it, or move the others up")
    return without_labels(texts) if labelled else texts


def are_labelled(rows: Iterable[Sequence[Any]]) -> bool:
    """Return whether at least half of the rows have labels before their choices, so that these are no contents."""
    texts = [[cell_text(cell) for cell in cells if cell_text(cell)] for cells in rows]
    filled = [row for row in texts if len(row) > 1]
    return 2 * sum(without_labels(row) != row for row in filled) >= max(len(filled), 1)


def _from_one(cell: Any) -> list[str]:  # noqa: ANN401  any cell
    if isinstance(cell, dict):
        return [cell_text(cell[key]) for key in sorted(cell)]
    if isinstance(cell, list):
        return without_labels(
            [cell_text(char["text"] if isinstance(char, dict) and "text" in char else char) for char in cell]
        )
    text = cell_text(cell)
    if text.startswith(("[", "{")):
        try:
            return _from_one(json.loads(text))
        except json.JSONDecodeError:
            pass
    if (inside := split_labelled(text)) is not None and not inside[0]:
        return inside[1]
    for sign in _SEPARATORS:
        if len(parts := [part.strip() for part in text.split(sign) if part.strip()]) > 1:
            return without_labels(parts)
    return [text] if text else []


def split_labelled(text: str) -> tuple[str, list[str]] | None:
    r"""Return the text before a series of labelled choices and the choices, or None where there is no such series.

    >>> split_labelled("正しいのはどれか。\na 肺炎\nb 胃炎")
    ('正しいのはどれか。', ['肺炎', '胃炎'])
    >>> split_labelled("正しいのはどれか。(1) 肺炎 (2) 胃炎 (3) 膵炎")
    ('正しいのはどれか。', ['肺炎', '胃炎', '膵炎'])
    >>> split_labelled("2 歳の女児。体重 12 kg。")
    >>> split_labelled("1日尿蛋白量を求めよ。解答：①.②g/日")
    """
    if _ANSWER_CELLS.search(text):
        return None
    cuts = [cut for series in _SERIES if (cut := _cut(text, series)) is not None]
    return max(cuts, key=lambda cut: len(cut[1]), default=None)


def _cut(text: str, series: str) -> tuple[str, list[str]] | None:
    # The last label of the first choice counts: a stem may name choices, too.
    for first in reversed(list(_label(series[0]).finditer(text))):
        starts, ends = [first.start()], [first.end()]
        for sign in series[1:]:
            following = _label(sign).search(text, ends[-1])
            if following is None:
                break
            starts.append(following.start())
            ends.append(following.end())
        parts = [text[end:start].strip() for end, start in zip(ends, [*starts[1:], len(text)], strict=True)]
        if len(parts) > 1 and all(parts):
            return text[: starts[0]].strip(), parts
    return None


def _label(sign: str) -> re.Pattern[str]:
    """Match a label at the start of a line, or within one where a bracket or point sets it off."""
    bare = rf"^[ \t　]*{sign}[ \t　]+|" if sign not in "①②③④⑤⑥⑦⑧" else f"{sign}|"
    return re.compile(
        rf"{bare}^[ \t　]*{sign}[.．:：)）、][ \t　]*|(?<![0-9A-Za-z０-９])[(（\[【]{sign}[)）\]】][ \t　]*"
        rf"|(?<=[\s　。？?]){sign}[.．)）](?!\d)[ \t　]*",
        re.MULTILINE,
    )


def without_labels(texts: list[str]) -> list[str]:
    """Drop labels that run in order, unless nothing, or the same text twice, would be left."""
    for series in _SERIES:
        marks = [_mark(sign).match(text) for sign, text in zip(series, texts, strict=False)]
        if len(texts) > 1 and len(marks) == len(texts) and all(marks):
            rest = [text[mark.end() :] for text, mark in zip(texts, marks, strict=True) if mark]
            if all(re.match(r"[^\W_]", char) for char in rest) and len(set(rest)) == len(rest):
                return rest
    return texts


def _mark(sign: str) -> re.Pattern[str]:
    """Match a label before a choice; a number needs a bracket or a point, since "1 年" is a choice."""
    if sign in "①②③④⑤⑥⑦⑧":
        return re.compile(rf"{sign}[.．:：)）、]?\s*")
    bare = "" if sign.isdecimal() else r"|[ \t　]+"
    return re.compile(rf"[(（\[【]?{sign}(?:[.．:：)）\]】、](?!\d){bare})\s*")


Kana = Literal["aiueo", "iroha"]
KANA: dict[Kana, str] = {"aiueo": "アイウエオカキク", "iroha": "イロハニホヘトチ"}
_OR = re.compile(r"\s*(?:または|又は|もしくは|若しくは|あるいは|\bor\b|\|\|?)\s*", re.IGNORECASE)
_BETWEEN = re.compile(r"\s*(?:[,、，・;/&+\s]|と|及び|および|\band\b)+\s*", re.IGNORECASE)
_AROUND = re.compile(r"^[\s(\[「【<]+|[\s)\]」】>.。]+$")
_WORDS = re.compile(r"^(?:正解|正答|解答|答え?|answer)\s*[:：]?\s*|(?:番|肢|が正しい|が正解)$", re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|[+-]?\.\d+")


class KeyFault(ValueError):
    """A key that cannot be read; the text names cause and remedy without the place."""


@dataclass(frozen=True)
class KeyForm:
    """How the keys of a whole table are written."""

    first: int = 1
    """The number of the first choice: 1, or 0 where choices are counted from zero."""
    kana: Kana = "aiueo"
    places: bool = False
    """Whether a number is always a place, so that it is not compared with choices that are numbers, too."""


def key_form(cells: Sequence[Any], *, first: int | None = None, kana: Kana | None = None) -> KeyForm:
    """Find out from all keys of a table whether choices count from 0 and in which order kana run.

    Raises:
        KeyFault: Both readings are possible, so that somebody must decide.
    """
    tokens = {token for cell in cells for token in _BETWEEN.split(_OR.sub(",", _plain(cell)))}
    if first is None and "0" in tokens:
        raise KeyFault("some keys are 0: with --first-choice 0 the choices count from 0, with --first-choice 1 from 1")
    signs = {_katakana(token) for token in tokens if len(token) == 1}
    iroha, aiueo = signs & set("ロハニホヘトチ"), signs & set("アウエオカキク")
    if kana is None and "イ" in signs and not iroha and not aiueo:
        raise KeyFault("the key い is the second of あいう (--kana aiueo) and the first of いろは (--kana iroha)")
    if kana is None and iroha and aiueo:
        raise KeyFault("the keys mix あいう and いろは. Select the order with --kana")
    return KeyForm(1 if first is None else first, kana or ("iroha" if iroha else "aiueo"))


def is_key_like(cell: str) -> bool:
    """Return whether a cell looks like the key of a question with choices."""
    text = _plain(cell)
    return bool(
        re.fullmatch(r"(?:[1-8]|[a-h]|[ア-ク]|[あいうえおかきく])(?:[\s,、・と]*(?:[1-8]|[a-h]|[ア-ク]))*", text)
    )


def read_key(cell: Any, choices: Sequence[str], form: KeyForm) -> list[str]:  # noqa: ANN401  any cell
    """Return the accepted answers of one question, "b,d" or "21.5", the first one first.

    Raises:
        KeyFault: The cell names no choice of the question, or, without choices, no number.

    >>> read_key("②と④", ["肺炎", "胃炎", "膵炎", "肝炎"], KeyForm())
    ['b,d']
    >>> read_key("1または3", ["肺炎", "胃炎", "膵炎"], KeyForm())
    ['a', 'c']
    >>> read_key("BMI = 62/1.7^2 = 21.5 kg/m2", [], KeyForm())
    ['21.5']
    """
    if isinstance(cell, list):
        cell = ",".join(map(str, cell))
    text = _plain(cell)
    if not text:
        raise KeyFault("there is no key. Write one, or leave the row out with --skip-faulty")
    if not choices:
        return [_number(text)]
    by_text, by_place = _by_text(text, choices), _letters_or_none(text, len(choices), form)
    if by_text is not None and not (form.places and by_place):
        if by_place is not None and by_place != {by_text}:
            raise KeyFault(
                f"the key {text} is the text of one choice and the place of another. Write the key as a letter"
            )
        return [by_text]
    return [write_answer(_letters(part, choices, form)) for part in _OR.split(text)]


def are_places(keys: Sequence[tuple[Any, Sequence[str]]], form: KeyForm) -> bool:
    """Return whether a table proves that its numbers are places: some can be nothing else, and none is only a text."""
    plain = [(_plain(cell), choices) for cell, choices in keys]
    numbers = [(text, choices) for text, choices in plain if text.isdecimal() and choices]
    by_text = [_by_text(text, choices) for text, choices in numbers]
    by_place = [_letters_or_none(text, len(choices), form) for text, choices in numbers]
    both = list(zip(by_text, by_place, strict=True))
    return any(place and not text for text, place in both) and not any(text and not place for text, place in both)


def _plain(cell: Any) -> str:  # noqa: ANN401  any cell
    text = unicodedata.normalize("NFKC", cell_text(cell)).strip().lower()
    text = _AROUND.sub("", text)
    return _AROUND.sub("", _WORDS.sub("", text)).strip()


def _katakana(sign: str) -> str:
    return chr(ord(sign) + 0x60) if len(sign) == 1 and "ぁ" <= sign <= "ん" else sign


def _by_text(text: str, choices: Sequence[str]) -> str | None:
    letters = [LETTERS[at] for at, choice in enumerate(choices) if _plain(choice) == text]
    return letters[0] if len(letters) == 1 else None


def _letters_or_none(text: str, count: int, form: KeyForm) -> frozenset[str] | None:
    signs: list[str] = []
    for token in filter(None, (_AROUND.sub("", part) for part in _BETWEEN.split(text))):
        at = _position(token, form)
        run = [_position(sign, form) for sign in token] if at is None or at >= count else [at]
        if any(char is None or not 0 <= char < count for char in run):
            return None
        signs += [LETTERS[char] for char in run if char is not None]
    return frozenset(signs) if signs and len(set(signs)) == len(signs) else None


def _position(token: str, form: KeyForm) -> int | None:
    """Return the place of a choice from 0, or None where the token names no place."""
    token = _WORDS.sub("", token)
    if token.isdecimal():
        return int(token) - form.first
    sign = _katakana(token)
    if len(sign) == 1 and sign in LETTERS:
        return LETTERS.index(sign)
    return KANA[form.kana].index(sign) if len(sign) == 1 and sign in KANA[form.kana] else None


def _letters(part: str, choices: Sequence[str], form: KeyForm) -> frozenset[str]:
    letters = _letters_or_none(part, len(choices), form)
    if letters is None:
        texts = [_by_text(piece, choices) for piece in re.split(r"[,、;/]", part)]
        letters = frozenset(text for text in texts if text) if texts and all(texts) else None
    if letters is None:
        listed = ", ".join(f"{LETTERS[at]} {choice[:20]}" for at, choice in enumerate(choices))
        raise KeyFault(f"the key {part} is none of the choices {listed}. Write numbers, letters or a choice's text")
    return letters


def _number(text: str) -> str:
    """Return the number of a key: the last result of a calculation, else the only number before a unit."""
    result = text.rsplit("=", 1)[-1].strip() if "=" in text else text
    leading = _NUMBER.match(result)
    if leading is None or re.match(r"\s*[~〜-]\s*\d", result[leading.end() :]):
        raise KeyFault(f"the key {text} is neither a choice, since there are none, nor one number")
    return leading[0].replace(",", "")
