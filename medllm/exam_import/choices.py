"""Finds the choices of a question: in columns of their own, in one cell, or at the end of the question's text."""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

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
            [cell_text(one["text"] if isinstance(one, dict) and "text" in one else one) for one in cell]
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
    found = [cut for series in _SERIES if (cut := _cut(text, series)) is not None]
    return max(found, key=lambda cut: len(cut[1]), default=None)


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
            if all(re.match(r"[^\W_]", one) for one in rest) and len(set(rest)) == len(rest):
                return rest
    return texts


def _mark(sign: str) -> re.Pattern[str]:
    """Match a label before a choice; a number needs a bracket or a point, since "1 年" is a choice."""
    if sign in "①②③④⑤⑥⑦⑧":
        return re.compile(rf"{sign}[.．:：)）、]?\s*")
    bare = "" if sign.isdecimal() else r"|[ \t　]+"
    return re.compile(rf"[(（\[【]?{sign}(?:[.．:：)）\]】、](?!\d){bare})\s*")
