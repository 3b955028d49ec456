"""The possible answers to a question: its letters, the number it asks for, and its choices in their own words."""

import re
from dataclasses import dataclass
from functools import lru_cache

from medllm.exam.extract.completion import normal
from medllm.exam.question import Question

_NEGATIVE = re.compile(
    r"誤|間違|不適|正しくな|ない(?:の|もの|組|対応|検査|治療|所見|疾患|症状|薬|選択肢|はどれ)|でない|ではない"
    r"|除く|禁忌|"
    r"\b(?:not|incorrect|false|except|least|inappropriate|wrong|never)\b",
    re.I,
)
_KANA_LABELS = re.compile(r"(?:^|[\s(、。])[ア-オ][.:)、(\s]|[ア-オ][・、,][ア-オ]")
_SEPARATOR = re.compile(r"[ \t]*(?:[,、・/;&+]|と|および|及び|ならびに|並びに|and\b)[ \t]*(?:and\b[ \t]*)?")
_BOUNDARY = re.compile(
    r"\s*(?:$|[\n。、,;:!(\[)\]}|]|\.(?!\d)|です|である|だ(?![がけ])|ではなく|でなく|じゃなく|でしょう|になる|になり|となる|となり"
    r"|と(?:考え|思|判断)"
    r"|が(?:最も)?(?:正|適切|妥当|該当|答)|を選|の[2二3三]つ|because\b|since\b|as\b|is (?:the )?(?:correct"
    r"|right|best)|[-–—→]\s)"
)
_LONGEST = 400


@dataclass(frozen=True, slots=True)
class AnswerSpace:
    """The facts of a question that the reading of its reply uses."""

    letters: str
    """The letters that can be chosen."""
    wanted: int
    """Number of letters the question asks for; 0 when the question is not known."""
    choices: tuple[tuple[str, str], ...]
    """Each letter with its choice's essence: letters and digits alone, in one case."""
    text: str
    """The essence of the question's text."""
    negative: bool
    """Whether the question asks for what is wrong."""
    kana: bool
    """Whether ア, イ, ウ may mean a, b, c: not where they label a part of the question itself."""
    plain: tuple[str, ...] = ()
    """The choices as published."""


def answer_space(question: Question | None) -> AnswerSpace:
    """Return the facts of a question, or the defaults where there is no question."""
    return _UNKNOWN if question is None else _asked(question)


@lru_cache(maxsize=2048)
def _asked(question: Question) -> AnswerSpace:
    whole = normal(question.text)
    return AnswerSpace(
        letters=question.letters,
        wanted=question.answers_wanted,
        choices=tuple(
            (letter, essence(choice)) for letter, choice in zip(question.letters, question.choices, strict=True)
        ),
        text=essence(question.text),
        negative=bool(_NEGATIVE.search(whole[-80:])),
        kana=not _KANA_LABELS.search("\n".join((whole, *map(normal, question.choices)))),
        plain=question.choices,
    )


def essence(words: str) -> str:
    """Reduce words to letters and digits in one case, which no difference in print changes."""
    return "".join(one for one in normal(words).casefold() if one.isalnum())


def choices_at(text: str, start: int, asked: AnswerSpace) -> tuple[frozenset[str], int] | None:
    """Return the choices whose own words begin at `start`, one or a list, and the place after them."""
    found: set[str] = set()
    end = start
    at = start
    while (one := _choice_at(text, at, asked)) is not None:
        letter, end = one
        found.add(letter)
        gap = _SEPARATOR.match(text, end)
        if gap is None or _choice_at(text, gap.end(), asked) is None:
            break
        at = gap.end()
    if not found or len(found) == len(asked.choices) or not _BOUNDARY.match(text, end):
        return None
    return frozenset(found), end


def _choice_at(text: str, start: int, asked: AnswerSpace) -> tuple[str, int] | None:
    """Return the longest choice whose own words begin at `start`."""
    if not asked.choices or start >= len(text):
        return None
    part = text[start : start + _LONGEST].split("\n", 1)[0]
    spoken = [(one, place) for place, sign in enumerate(part) for one in sign.casefold() if one.isalnum()]
    folded = "".join(one for one, _ in spoken)
    same = [
        (len(words), letter)
        for letter, words in asked.choices
        if words and folded.startswith(words) and _ends(part, spoken[len(words) - 1][1] + 1, words)
    ]
    if not same or (not part[0].isalnum() and part[0] not in "([{<〈《'-.+ \t　"):
        return None
    size, letter = max(same)
    if [other for length, other in same if length == size] != [letter]:
        return None
    return letter, start + spoken[size - 1][1] + 1


def _ends(part: str, end: int, words: str) -> bool:
    """Return whether a choice's words end there, rather than inside a longer word or number."""
    rest = part[end : end + 8]
    if not rest:
        return True
    if re.match(r"\.?\d", rest) and words[-1].isdigit():
        return False
    return bool(
        _BOUNDARY.match(rest) or _SEPARATOR.match(rest) or (not rest[0].isalnum() and not re.match(r"\s+\w", rest))
    )


_UNKNOWN = AnswerSpace("abcde", 0, (), "", negative=False, kana=True)


def own_words(letter: str, words: str, asked: AnswerSpace) -> bool | None:
    """Return whether words after a letter are that choice's; None if not comparable, as in another script."""
    own = dict(asked.choices).get(letter)
    folded = essence(words)
    if own is None or not folded:
        return None
    if own.startswith(folded) or (own and folded.startswith(own)):
        return True
    return False if own.isascii() == folded.isascii() else None
