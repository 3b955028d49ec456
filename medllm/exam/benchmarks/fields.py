"""Cells that several benchmarks share: texts, shares, letters in full-width or run-together form, and numeric keys."""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from medllm.errors import DataError
from medllm.exam.question import LETTERS

_CELLS = re.compile(r"解答[：:]\s*(?P<lead>[\d,\s]*)(?P<whole>[①-⑨]+)(?:[.．](?P<part>[①-⑨]+))?")


def text_of(row: Mapping[str, Any], column: str, place: str) -> str:
    """Return a cell that must hold text."""
    value = row.get(column)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise DataError("exam.missing-text", f"{place}: {column} is {value!r}. Every question needs it as text.")
    return value


def float_or_none(value: object) -> float | None:
    """Return a number that may be left out; some publishers then write an empty string."""
    return None if value is None or value == "" else float(str(value))


def normal_letters(values: Iterable[str]) -> frozenset[str]:
    """Normalise choice letters from hand-made lists: full-width, run together, padded with spaces.

    >>> sorted(normal_letters(["cde", " ｂ"]))
    ['b', 'c', 'd', 'e']
    """
    joined = unicodedata.normalize("NFKC", "".join(values)).lower()
    return frozenset(letter for letter in joined if letter in LETTERS)


def numeric_gold(key: str, text: str) -> tuple[frozenset[str], ...]:
    """Return the accepted numbers for a numeric key, according to the answer cells printed in the question.

    Some keys lack the decimal point that the cells have, and some lack digits that are printed before the cells.

    >>> numeric_gold("21", "求めよ。解答：①.②g/日") == (frozenset({"2.1"}),)
    True
    >>> [sorted(gold)[0] for gold in numeric_gold("130", "求めよ。解答：1, ①②③ kcal")]
    ['130', '1130']
    """
    cells = _CELLS.search(text)
    if cells is None:
        return (frozenset({key}),)
    if cells["part"] and "." not in key:
        key = f"{key[: -len(cells['part'])]}.{key[-len(cells['part']) :]}"
    lead = re.sub(r"\D", "", cells["lead"])
    return (frozenset({key}), frozenset({lead + key})) if lead else (frozenset({key}),)
