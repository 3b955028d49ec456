"""Guesses which column of a table is the question, the choices, the key and the rest, from headings and cells."""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from medllm.errors import DataError
from medllm.exam_import.choices import is_key_like
from medllm.exam_import.sheet import Sheet

HEADINGS: dict[str, tuple[str, ...]] = {
    "question_id": (
        "id", "questionid", "problemid", "qid", "no", "#", "番号", "問番号", "問題番号", "設問番号", "通し番号", "問",
    ),
    "text": (
        "text", "question", "stem", "problemtext", "questiontext", "prompt", "問題文", "問題", "設問", "設問文", "質問",
        "質問文", "本文",
    ),
    "choices": ("choices", "options", "answerchoices", "選択肢", "選択枝", "肢"),
    "answer": (
        "answer", "answers", "key", "gold", "label", "correct", "correctanswer", "correctanswers", "correctoption",
        "answerkey", "answeridx", "正解", "正答", "解答", "答え", "答", "正解肢", "正答番号", "正解番号", "解答番号",
    ),
    "year": ("year", "examyear", "年", "年度", "実施年", "実施年度", "西暦"),
    "exam_date": ("examdate", "date", "実施日", "試験日", "日付"),
    "section": ("section", "ブロック", "区分", "セクション", "部"),
    "category": ("category", "subject", "分野", "科目", "領域", "カテゴリ", "カテゴリー", "診療科"),
    "points": ("points", "score", "配点", "点数", "点"),
    "explanation": ("explanation", "rationale", "解説", "説明", "解答解説", "根拠"),
    "image": ("image", "images", "figure", "画像", "図", "図表", "別冊"),
    "prohibited": ("prohibited", "禁忌", "禁忌肢"),
    "group": ("group", "vignette", "連問", "症例番号", "グループ"),
    "context": ("context", "passage", "症例", "症例文", "共通文", "前文"),
    "required": ("required", "必修"),
    "language": ("language", "lang", "言語"),
}  # fmt: skip
"""Headings by field, without spaces, signs and capitals."""

_CHOICE = re.compile(r"(?:選択肢|選択枝|肢|choice|option|opt|answerchoice)?([1-9]|[a-h]|[ア-ク]|[あいうえおかきく])")
_RANGE = re.compile(r"(.+)\.\.(.+)")
SURE = 0.95
"""Share of the cells that must read as keys before a column is taken for the key without a heading for it."""


@dataclass(frozen=True)
class Columns:
    """The headings of each field; `choices` may have several."""

    fields: Mapping[str, str]
    choices: tuple[str, ...] = ()
    """Headings of the columns with one choice each, or of the one column that holds all; empty for none."""
    unsure: tuple[str, ...] = ()
    """Fields that were found by their cells alone, so that somebody should confirm them."""
    unused: tuple[str, ...] = ()
    missing: tuple[str, ...] = field(default=())
    """Needed fields for which no column was found."""

    def lines(self) -> list[str]:
        """Write one line a field: `text = 問題文`."""
        named = dict(self.fields)
        if self.choices:
            named["choices"] = self.choices[0] if len(self.choices) == 1 else f"{self.choices[0]}..{self.choices[-1]}"
        else:
            named["choices"] = "(none: in the question's text, or questions for a number)"
        return [f"{name} = {heading}" for name, heading in sorted(named.items(), key=_order)]

    def option(self) -> str:
        """Write the columns as the value of --columns."""
        parts = [f"{name}={heading}" for name, heading in sorted(self.fields.items(), key=_order)]
        if self.choices:
            parts.insert(1, "choices=" + "+".join(self.choices))
        return ",".join(parts)


def _order(item: tuple[str, str]) -> int:
    return list(HEADINGS).index(item[0])


def parse_columns(written: Iterable[str], sheet: Sheet) -> Columns:
    """Read `text=問題文,choices=A..E,answer=正解` (--columns) against the headings of a table.

    Raises:
        DataError: A field or a heading that does not exist.
    """
    fields: dict[str, str] = {}
    choices: tuple[str, ...] = ()
    for part in (part for text in written for part in text.split(",") if part.strip()):
        name, _, headings = (word.strip() for word in part.partition("="))
        if name not in HEADINGS or not headings:
            raise DataError(
                "exam.unknown-field",
                f"--columns {part.strip()}: write FIELD=HEADING with a field of {', '.join(HEADINGS)}.",
            )
        if name == "choices":
            choices = _choice_headings(headings, sheet)
        else:
            fields[name] = _known(headings, sheet)
    missing = tuple(name for name in ("text", "answer") if name not in fields)
    used = {*fields.values(), *choices}
    return Columns(
        fields, choices, missing=missing, unused=tuple(heading for heading in sheet.headings if heading not in used)
    )


def _choice_headings(written: str, sheet: Sheet) -> tuple[str, ...]:
    if written in sheet.headings:
        return (written,)
    if span := _RANGE.fullmatch(written):
        first, last = (sheet.headings.index(_known(group.strip(), sheet)) for group in span.groups())
        return sheet.headings[first : last + 1]
    return tuple(_known(part.strip(), sheet) for part in written.split("+"))


def _known(heading: str, sheet: Sheet) -> str:
    if heading not in sheet.headings:
        raise DataError(
            "exam.unknown-heading",
            f"--columns: {sheet.place} has no heading `{heading}`. Its headings are {', '.join(sheet.headings)}.",
        )
    return heading


def guess_columns(sheet: Sheet, given: Columns | None = None) -> Columns:
    """Find the columns by their headings, then the question and the key by their cells; `given` ones are kept."""
    fields = dict(given.fields) if given else {}
    plain = {heading: _plain(heading) for heading in sheet.headings}
    choices = (given.choices if given else ()) or _choices(sheet, plain, set(fields.values()))
    for name, known in HEADINGS.items():
        taken = {*fields.values(), *choices}
        candidates = [
            heading for word in known for heading in sheet.headings if plain[heading] == word and heading not in taken
        ]
        if name not in fields and name != "choices" and candidates:
            fields[name] = candidates[0]
    unsure = []
    for name, find in (("answer", _key_column), ("text", _longest_column)):
        if name not in fields and (heading := find(sheet, {*fields.values(), *choices})):
            fields[name] = heading
            unsure.append(name)
    used = {*fields.values(), *choices}
    return Columns(
        fields,
        choices,
        tuple(unsure),
        tuple(heading for heading in sheet.headings if heading not in used),
        tuple(name for name in ("text", "answer") if name not in fields),
    )


def _plain(heading: str) -> str:
    text = unicodedata.normalize("NFKC", heading).lower()
    text = re.sub(r"[(（\[【].*?[)）\]】]", "", text)
    return re.sub(r"[\s_.\-・:：　]", "", text)


def _choices(sheet: Sheet, plain: Mapping[str, str], taken: set[str]) -> tuple[str, ...]:
    """Return the columns of single choices in the order of their labels, else the one column that holds all."""
    free = [heading for heading in sheet.headings if heading not in taken]
    labelled: dict[str, str] = {}
    for heading in free:
        if label := _CHOICE.fullmatch(plain[heading]):
            labelled.setdefault(label[1], heading)
    for order in ("12345678", "abcdefgh", "アイウエオカキク", "あいうえおかきく"):
        run = [labelled[label] for label in order if label in labelled]
        if len(run) > 1 and order[0] in labelled and run == [labelled.get(label) for label in order[: len(run)]]:
            return tuple(run)
    return tuple(column for word in HEADINGS["choices"] for column in free if plain[column] == word)[:1]


def _key_column(sheet: Sheet, taken: set[str]) -> str | None:
    candidates = [
        heading for heading in sheet.headings if heading not in taken and _share(sheet.column(heading)) >= SURE
    ]
    return candidates[0] if len(candidates) == 1 else None


def _share(cells: list[Any]) -> float:
    filled = [str(cell) for cell in cells if cell is not None and str(cell).strip()]
    return sum(map(is_key_like, filled)) / len(cells) if filled else 0.0


def _longest_column(sheet: Sheet, taken: set[str]) -> str | None:
    lengths = {
        heading: sum(len(str(cell or "")) for cell in sheet.column(heading))
        for heading in sheet.headings
        if heading not in taken
    }
    longest = max(lengths, key=lambda column: lengths[column], default=None)
    return longest if longest and lengths[longest] >= 8 * len(sheet.rows) else None
