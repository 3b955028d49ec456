"""The rules that find an answer in a text: a mark, a correction, the whole reply, a line alone, a conclusion."""

import re
from typing import NamedTuple

from medllm.exam.extract.choice_list import bare_list, closed_list, letters_at, list_before, spread_list
from medllm.exam.extract.completion import CIRCLED
from medllm.exam.extract.statements import stated
from medllm.exam.extract.vocabulary import (
    CONCLUSION,
    CONNECTORS,
    CORRECTION,
    HEADING,
    LABELS,
    LOOSE_NAMES,
    AnswerSpace,
    behind,
    choices_at,
    enumerates,
    essence,
    in_an_aside,
    is_firm,
    marks_of,
    of_another,
    own_words,
    under_condition,
)

_VERDICT = r"\s*(?:が|を|is\b|are\b)\s*(?:最も|the\s+)?"
_CHOSEN = re.compile(
    rf"{_VERDICT}(?:正解|正答|答え|選(?:ぶ|択|び)|(?:correct|right|best)\s+(?:answer|choice|option)"
    r"|(?<=最も)(?:適切|妥当|考え|疑)|(?P<weak>正しい|適切|妥当|該当|correct|right|best))(?!とは|では|でな"
    r"|くな|と(?:すると|したら|なるのは)|なら)",
    re.I,
)
_INSTEAD = re.compile(r"\s*(?:では|で|じゃ)なく(?:て)?[、,]?\s*")
_STARTS_BARE = re.compile(rf"[ \t(\[]*[a-hA-H{CIRCLED}][^\n]{{0,20}}$")
_LABEL = re.compile(r"[ \t([]*\w[)\]]?[ \t]*[:.)、(]")
_NEXT_LABEL = re.compile(r"\s[(\[]?[b-hB-H][.:)\]]\s*\S")
_SPECIES = re.compile(r"[ \t([]*[A-H]\.[ \t]+[a-z]")
_NUMBER_SIGNS = ("12345678", CIRCLED, "アイウエオカキク")
_NUMBER_LABEL = re.compile(rf"[ \t(]*(?P<sign>[1-8{CIRCLED}]|(?P<kana>[アイウエオカキク]))[ \t]*[.:)、]?[ \t]*")
_REFUSES = re.compile(
    r"\b(?:not|cannot|unable|sorry|unfortunately)\b|でき(?:ない|ません)|ありません|わか(?:らない|りません)", re.I
)
_ITEM = re.compile(
    r"[ \t]*(?P<bullet>[-*•・‣▪●◦–][ \t]*|(?:\d{1,2}[.)]|\(\d{1,2}\)|[❶-❽])[ \t]*(?=[^\d\s]))?(?P<words>[^\n]{1,200})"
)
_ENDS_TEXT = re.compile(r"\s*(?:です|である|だ|と(?:考え|思|判断)[^\n。]{0,8})?[。.!\s]*$")


class ChoicesAt(NamedTuple):
    """Letters, the rule that read them, and their end in the text."""

    letters: frozenset[str]
    rule: str
    end: int
    firm: bool


def read_marked(text: str, asked: AnswerSpace) -> ChoicesAt | None:
    """Return the last list after a mark or heading, in a box, a tag, or as a choice's own words."""
    marks = marks_of(text)
    for place, mark in enumerate(marks):
        if of_another(text, mark.start()) or under_condition(text, mark.start()) or enumerates(text, mark):
            continue
        choices = _headed(text, mark, asked) if mark.re is HEADING else _behind_mark(text, mark, asked)
        if choices is None or (in_an_aside(text, mark.start()) and place + 1 < len(marks)):
            continue
        if len(choices.letters) < asked.wanted:
            return _joined(text, choices, marks[place + 1 :], asked)
        return choices
    return None


def _joined(text: str, last: ChoicesAt, before: list[re.Match[str]], asked: AnswerSpace) -> ChoicesAt:
    """Join the answers of consecutive lines, where one line alone gives fewer letters than the question asks for."""
    letters = last.letters
    for line in text[last.end + 1 : last.end + 200].split("\n") if text[last.end : last.end + 1] == "\n" else ():
        more = _alone(line, asked)
        if more is None or len(letters) >= asked.wanted:
            break
        letters = letters | more
    if len(letters) == asked.wanted:
        return last._replace(letters=letters)
    letters = last.letters
    start = None
    for mark in before:
        choices = _headed(text, mark, asked) if mark.re is HEADING else _behind_mark(text, mark, asked)
        if (
            choices is None
            or choices.end > last.end
            or (start is not None and text[choices.end : start].strip(" \t\n。.、,"))
        ):
            continue
        gap = text[choices.end : last.end]
        if gap.count("\n") > asked.wanted or len(gap) > 80 * asked.wanted:
            break
        letters = letters | choices.letters
        start = mark.start()
        if len(letters) == asked.wanted:
            return last._replace(letters=letters)
    return last


def _behind_mark(text: str, mark: re.Match[str], asked: AnswerSpace) -> ChoicesAt | None:
    """Return the answer after 「答え」, 【回答】, "answer is", "boxed:" or "tagged:"."""
    begin = behind(text, mark)
    how = {"boxed:": "boxed", "tagged:": "tag"}.get(mark[0], "marker")
    connected = mark[0].rstrip()[-1:] in CONNECTORS
    listed = _items(text, begin, asked) if "\n" in text[mark.end() - 1 : begin] or how == "tag" else None
    if listed is not None:
        return listed
    words = choices_at(text, begin, asked)
    if words is not None and (instead := _INSTEAD.match(text, words[1])):
        words = choices_at(text, instead.end(), asked)
    if words is not None and not _taken_back(text, words[1]):
        return ChoicesAt(words[0], "choice text", words[1], is_firm(text, mark.start(), words[1], how))
    choices = letters_at(text, begin, asked.letters, lenient=connected)
    if choices is None or not _kana_allowed(text[begin : choices[1]], asked):
        return None
    letters, end = choices
    spread = spread_list(text, begin, asked.letters, asked.wanted) if len(letters) < asked.wanted else None
    return ChoicesAt(spread or letters, how, end, is_firm(text, mark.start(), end, how))


def _taken_back(text: str, end: int) -> bool:
    return bool(
        re.match(r"\s*(?:では(?:な|あり)|でな|じゃな|以外|または|もしくは|か(?=[?。\s]|$)|\?)", text[end : end + 12])
    )


def _kana_allowed(span: str, asked: AnswerSpace) -> bool:
    return asked.kana or not re.search("[アイウエオカキク]", span)


def _headed(text: str, mark: re.Match[str], asked: AnswerSpace) -> ChoicesAt | None:
    """Return the answer after a heading: one that fills its line, or a list of lines under the heading."""
    name = mark["name"].casefold()
    loose = name.endswith(LOOSE_NAMES)
    if not (mark["close"] or mark["joint"] or mark["line"] or (loose and mark[0][-1:].isspace())):
        return None
    if name.endswith(LABELS) and not (mark["joint"] and not mark["line"]):
        return None
    if name == "a" and (
        mark["joint"] not in (":", "→") or mark["name"] != "A" or re.search(r"^[ \t]*B[ \t]*:", text, re.M)
    ):
        return None
    if mark["line"] and (listed := _items(text, mark.end(), asked)) is not None:
        return listed
    line = text[mark.end() : mark.end() + 200].split("\n", 1)[0]
    letters = _text_alone(line, asked) or _alone(line, asked)
    return None if letters is None else ChoicesAt(letters, "marker", mark.end() + len(line), firm=True)


def _items(text: str, begin: int, asked: AnswerSpace) -> ChoicesAt | None:
    """Return the letters of lines that give one answer each, after bullets or numbers."""
    gathered: set[str] = set()
    place, end = begin, begin
    marked = False
    while (item := _ITEM.match(text, place)) is not None and len(gathered) < 8:
        letters = _text_alone(item["words"], asked) or _alone(item["words"], asked)
        if letters is None or (gathered and not item["bullet"] and (marked or asked.wanted < 2)):
            break
        marked = marked or item["bullet"] is not None
        gathered |= letters
        end = item.end()
        place = end + 1
    if not gathered or len(gathered) == len(asked.letters) or (not marked and len(gathered) < 2):
        return None
    return ChoicesAt(frozenset(gathered), "marker", end, firm=True)


def _text_alone(line: str, asked: AnswerSpace) -> frozenset[str] | None:
    """Return the choices whose own words fill a line."""
    words = choices_at(line, 0, asked)
    return words[0] if words is not None and _ENDS_TEXT.match(line, words[1]) else None


def _alone(line: str, asked: AnswerSpace) -> frozenset[str] | None:
    """Return the letters of a line that is only the answer: "b,d", or "b: 硫化水素中毒" in the choice's own words.

    The words must be the choice's if both are in one script: "C. difficile infection" and "D dimer" are no
    answers, "c (retinal photocoagulation)" is one.
    """
    choices = bare_list(line, asked.letters)
    if choices is None:
        return _numbered(line, asked)
    if not _kana_allowed(line, asked):
        return None
    letters, words = choices
    if not words:
        return letters
    (letter,) = letters
    if _NEXT_LABEL.search(words) or (len(words) < 4 and bare_list(words, asked.letters)):
        return None
    own = own_words(letter, words, asked)
    if own is not None:
        return letters if own else None
    label = _LABEL.match(line)
    return letters if label and not _SPECIES.match(line) and not _REFUSES.search(words) else None


def _numbered(line: str, asked: AnswerSpace) -> frozenset[str] | None:
    """Return the letter of a number, a circled one or kana before that choice's own words: "❷肝臓", "イ.肝臓"."""
    label = _NUMBER_LABEL.match(line)
    if label is None or not asked.choices or (label["kana"] and not asked.kana):
        return None
    place = next(signs.index(label["sign"]) for signs in _NUMBER_SIGNS if label["sign"] in signs)
    if place >= len(asked.choices):
        return None
    letter, own = asked.choices[place]
    return frozenset(letter) if own and essence(line[label.end() :]) == own else None


def read_correction(text: str, after: int, asked: AnswerSpace) -> ChoicesAt | None:
    """Return the last answer that replaces an earlier one: 「いや、b です」, "Actually, it's B."."""
    for change in list(CORRECTION.finditer(text, after))[-20:][::-1]:
        if choices := closed_list(text, change.end(), asked.letters):
            return ChoicesAt(choices[0], "correction", choices[1], firm=False)
    return None


def read_whole(text: str, asked: AnswerSpace) -> ChoicesAt | None:
    """Return the answer of a reply that has nothing else."""
    if "\n" in text:
        lines = _items(text, 0, asked) if 1 < asked.wanted < 8 and len(text) < 400 else None
        return lines if lines is not None and lines.end == len(text) and len(lines.letters) == asked.wanted else None
    words = choices_at(text, 0, asked)
    if words is not None and (len(text) < 2 * len(text[: words[1]]) + 12 or _ENDS_TEXT.match(text, words[1])):
        return None if _taken_back(text, words[1]) else ChoicesAt(words[0], "choice text", words[1], firm=True)
    letters = _alone(text, asked)
    return None if letters is None else ChoicesAt(letters, "bare", len(text), firm=True)


def read_last_line(text: str, asked: AnswerSpace) -> ChoicesAt | None:
    """Return a list alone on the last line; a list above may only repeat it."""
    *above, last = text.split("\n")
    if not above or not _STARTS_BARE.match(last):
        return None
    letters = _alone(last, asked)
    return (
        ChoicesAt(letters, "last line", len(text), firm=False) if letters and _none_but(letters, above, asked) else None
    )


def read_first_line(text: str, asked: AnswerSpace) -> ChoicesAt | None:
    """Return a list alone on the first line, above an explanation that names no other."""
    first, *below = text.split("\n")
    letters = _alone(first, asked)
    return (
        ChoicesAt(letters, "first line", len(first), firm=True)
        if letters and _none_but(letters, below, asked)
        else None
    )


def _none_but(letters: frozenset[str], lines: list[str], asked: AnswerSpace) -> bool:
    """Return whether no line is a bare list of other letters, as it would be where the choices are only listed."""
    return all(_alone(line, asked) in (None, letters) for line in lines)


def read_conclusion(text: str, asked: AnswerSpace) -> ChoicesAt | None:
    """Return the answer of 「よって b が正しい」, "Therefore, b.", or of every 「b が正解」 if all agree."""
    drawn: list[tuple[int, frozenset[str]]] = []
    conclusions: set[frozenset[str]] = set()
    for verdict in _CHOSEN.finditer(text):
        begin = max(text.rfind("。", 0, verdict.start()), text.rfind("\n", 0, verdict.start())) + 1
        sentence = text[max(begin, verdict.start() - 80) : verdict.start()]
        letters = list_before(sentence, asked.letters)
        if letters is None or under_condition(text, verdict.start()):
            continue
        if CONCLUSION.match(sentence.lstrip()):
            drawn.append((verdict.start(), letters))
        elif not verdict["weak"]:
            conclusions.add(letters)
    for conclusion in CONCLUSION.finditer(text):
        part = re.split(r"[。\n]", text[conclusion.end() : conclusion.end() + 60], maxsplit=1)[0]
        choices = bare_list(part, asked.letters)
        if choices is not None and not choices[1]:
            drawn.append((conclusion.end(), choices[0]))
    if drawn:
        at, letters = max(drawn, key=lambda drawing: drawing[0])
        return ChoicesAt(letters, "conclusion", at, firm=False)
    return ChoicesAt(conclusions.pop(), "conclusion", len(text), firm=False) if len(conclusions) == 1 else None


def read_statement(text: str, asked: AnswerSpace) -> ChoicesAt | None:
    """Return the answer of a sentence in the question's words, or of a verdict on every choice."""
    letters = stated(text, asked)
    return None if letters is None else ChoicesAt(letters, "conclusion", len(text), firm=False)
