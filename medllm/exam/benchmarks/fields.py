"""What several benchmarks share: texts, letters and numeric keys in cells, and vignettes over several questions."""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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


_HEAD = re.compile(r"次の文を読み、?(?:(\d+)[、,～〜~-]\s*(\d+)|以下)\s*の問いに答えよ。")
_NUMBER = re.compile(r"\d+$")
_ASKS = re.compile(r"(か|選べ|せよ|求めよ|答えよ)[。？?]?$")


def without_announcement(text: str) -> str:
    """Remove a case text's opening sentence, "read the following and answer questions 41 and 42"."""
    return _HEAD.sub("", text, count=1).strip()


def vignette_of(text: str) -> str:
    """Remove from a question's text the sentence that announces the case and the question asked at the end.

    >>> vignette_of("次の文を読み、40、41の問いに答えよ。22歳の女性。腹痛で来院した。行うのはどれか。2つ選べ。")
    '22歳の女性。腹痛で来院した。'
    """
    sentences = re.findall(r"[^。]*。|[^。]+$", without_announcement(text))
    while sentences and _ASKS.search(sentences[-1].strip()):
        asked = sentences.pop()
        if not asked.strip().endswith(("選べ。", "選べ")):
            break
    return "".join(sentences).strip()


@dataclass(frozen=True)
class Vignettes:
    """The cases of one exam section: question id to case id, and to the case text printed only in earlier questions."""

    groups: dict[str, str]
    lost_texts: dict[str, str]

    @classmethod
    def of(cls, questions: list[tuple[str, str]]) -> "Vignettes":
        """Find the cases among the (id, text) pairs of a section, by each case's announcing sentence.

        The sentence names the questions ("51～53") in 2018 and 2019; since 2020 it only reads "the following", and a
        case has two questions in sections B and E, three in C and F.
        """
        texts = dict(questions)
        groups: dict[str, str] = {}
        lost: dict[str, str] = {}
        for head, text in questions:
            if not (announced := _HEAD.match(text)):
                continue
            case = vignette_of(text)
            groups[head] = head
            for follower in _followers(head, announced):
                if follower not in texts or _HEAD.match(texts[follower]):
                    break
                groups[follower], lost[follower] = head, case
                case = "\n".join(part for part in (case, vignette_of(texts[follower])) if part)
        return cls(groups, lost)

    def group(self, question_id: str) -> str | None:
        """Return the case's id (its first question), or None for a question without a shared case."""
        return self.groups.get(question_id)

    def lost(self, question_id: str) -> str | None:
        """Return the case text that only the earlier questions of the case contain, or None."""
        return self.lost_texts.get(question_id)


def _followers(head: str, announced: re.Match[str]) -> list[str]:
    """Return the ids of the questions that follow a case's first one."""
    stem = _NUMBER.sub("", head)
    first = int(head.removeprefix(stem))
    last = int(announced.group(2)) if announced.group(2) else first + (1 if stem[-1] in "BE" else 2)
    return [f"{stem}{number}" for number in range(first + 1, last + 1)]
