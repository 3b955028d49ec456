"""Reads a key as people write it: number, letter, full-width, kana, circled sign, a choice's text, value with unit."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from medllm.exam.question import LETTERS, write_answer
from medllm.exam_import.sheet import cell_text

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
    found = [LETTERS[at] for at, choice in enumerate(choices) if _plain(choice) == text]
    return found[0] if len(found) == 1 else None


def _letters_or_none(text: str, count: int, form: KeyForm) -> frozenset[str] | None:
    signs: list[str] = []
    for token in filter(None, (_AROUND.sub("", one) for one in _BETWEEN.split(text))):
        at = _position(token, form)
        run = [_position(sign, form) for sign in token] if at is None or at >= count else [at]
        if any(one is None or not 0 <= one < count for one in run):
            return None
        signs += [LETTERS[one] for one in run if one is not None]
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
    found = _letters_or_none(part, len(choices), form)
    if found is None:
        texts = [_by_text(one, choices) for one in re.split(r"[,、;/]", part)]
        found = frozenset(one for one in texts if one) if texts and all(texts) else None
    if found is None:
        listed = ", ".join(f"{LETTERS[at]} {choice[:20]}" for at, choice in enumerate(choices))
        raise KeyFault(f"the key {part} is none of the choices {listed}. Write numbers, letters or a choice's text")
    return found


def _number(text: str) -> str:
    """Return the number of a key: the last result of a calculation, else the only number before a unit."""
    result = text.rsplit("=", 1)[-1].strip() if "=" in text else text
    leading = _NUMBER.match(result)
    if leading is None or re.match(r"\s*[~〜-]\s*\d", result[leading.end() :]):
        raise KeyFault(f"the key {text} is neither a choice, since there are none, nor one number")
    return leading[0].replace(",", "")
