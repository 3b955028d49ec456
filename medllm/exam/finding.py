"""The rules that find an answer in a reply, strongest first: marked, whole, last line, conclusion, first line."""

import re

from medllm.exam.letters import bare_list, letters_at, list_before, number_at, spread_list
from medllm.exam.question import Question, write_answer
from medllm.exam.reply import CIRCLED, normal

_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_LATEX = re.compile(r"\\(?:text|textbf|mathrm|mathbf|bf|rm)\b\s*|[{}\\]")
_DECORATION = re.compile(r'[*`$「」『』“”"]+')
_NAMED = r"(?:の?(?:番号|記号|選択肢|肢))?[ \t]*(?:として)?(?:は|が|[:=→⇒])?"
_IS = r"s?\s*(?:(?:is|are|would\s+be)\b\s*:?|[:=])"
_MARK = re.compile(
    r"boxed:|【\s*(?:最終)?(?:回答|解答|答え|答|正解|正答|結論|answer)\s*】"
    rf"|回答{_NAMED}|解答{_NAMED}|答え{_NAMED}|正解{_NAMED}|正答{_NAMED}"
    rf"|answer{_IS}|option{_IS}|choice{_IS}|choose\b|chose\b|select\b|pick\b|go\s+with\b"
)
"""Every branch begins with a letter of its own, so that the search skips at once what no mark begins with."""
_FILLER = re.compile(
    r"(?:[\s:=は、→⇒]|以下の(?:通り|とおり)(?:です)?|次の(?:通り|とおり)(?:です)?|それぞれ|最も適切なのは|options?\s)*",
    re.I,
)
_BLANK = re.compile(r"[ \t]*(?:\n+(?=[^\n]{1,12}\Z))?")
_CONNECTORS = ":=】はが→⇒"
_VERDICT = r"\s*(?:が|を|is\b|are\b)\s*(?:最も|the\s+)?"
_CONCLUSION = re.compile(
    r"(?:したがって|従って|よって|以上(?:より|から)|ゆえに|故に|結論として|therefore|thus|hence)[、,]?\s*", re.I
)
_CHOSEN = re.compile(
    rf"{_VERDICT}(?:正解|正答|答え|選(?:ぶ|択|び)|(?:correct|right|best)\s+(?:answer|choice|option)"
    r"|(?<=最も)(?:適切|妥当|考え|疑)|(?P<weak>正しい|適切|妥当|該当|correct|right|best))(?!とは|では|でな|くな)",
    re.I,
)
_BARE_NUMBER = re.compile(r"[^\d\n❶-❽]{0,8}(?P<number>[\d❶-❽][\d,.❶-❽\s:=]*)[^\d\n]{0,20}")
_STARTS_BARE = re.compile(rf"[ \t(\[]*[a-hA-H{CIRCLED}][^\n]{{0,20}}$")
_LONGEST_CHOICE = 400
_LABEL = re.compile(r"[ \t([]*\w[)\]]?[ \t]*[:.)、(]")
_SPECIES = re.compile(r"[ \t([]*[A-H]\.[ \t]+[a-z]")
_REFUSES = re.compile(
    r"\b(?:not|cannot|unable|sorry|unfortunately)\b|でき(?:ない|ません)|ありません|わか(?:らない|りません)", re.I
)
_CONCLUDED_NUMBER = re.compile(
    r"(?:したがって|従って|よって|以上(?:より|から)|ゆえに|therefore|thus|hence)[^\n。]{0,40}?(?:は|が|=|\bis)\s*(?=[\d約❶])",
    re.I,
)
_NAMED_NUMBER = re.compile(r"[^\d\n。、❶]{1,20}(?:は|が|=|:|\bis)\s*(?=[\d約❶])")


def find(text: str, question: Question | None) -> tuple[str | None, str | None]:
    """The answer and the rule that found it, strongest rules first."""
    boxed = _BOXED.sub(lambda box: f"\nboxed: {_LATEX.sub('', box[1])}\n", text) if "\\boxed" in text else text
    text = _DECORATION.sub("", boxed).strip()
    if question is not None and question.numeric:
        return _find_number(text)
    allowed = question.letters if question is not None else "abcde"
    for rule in (_marked, _whole, _last_line, _concluded, _first_line):
        letters, how = rule(text, allowed, question)
        if letters is not None:
            return write_answer(letters), how
    return None, None


Found = tuple[frozenset[str] | None, str | None]


def _marks(text: str) -> list[re.Match[str]]:
    """The places where an answer is announced, the last one first."""
    lowered = text.lower()
    found = _MARK.finditer(lowered if len(lowered) == len(text) else text)
    return [mark for mark in found if not _inside_word(text, mark.start())][::-1]


def _inside_word(text: str, start: int) -> bool:
    """Whether an English mark is the tail of a longer word."""
    letter = text[start - 1 : start] if start else ""
    return text[start].isascii() and letter.isascii() and letter.isalpha()


def _marked(text: str, allowed: str, question: Question | None) -> Found:
    """The last list that stands behind "答え", 【回答】, "answer is", a JSON key or in a box."""
    for mark in _marks(text):
        begin = _behind(text, mark)
        how = "boxed" if mark[0] == "boxed:" else "marker"
        by_text = _choice_text(text[begin : begin + _LONGEST_CHOICE], question)
        if by_text is not None:
            return by_text, "choice text"
        letters = letters_at(text, begin, allowed, lenient=mark[0].rstrip()[-1:] in _CONNECTORS)
        if letters is not None:
            wanted = question.answers_wanted if question else 0
            spread = spread_list(text, begin, allowed, wanted) if len(letters) < wanted else None
            return spread or letters, how
    return None, None


def _behind(text: str, mark: re.Match[str]) -> int:
    connected = mark[0].rstrip()[-1:] in _CONNECTORS
    filler = (_FILLER if connected else _BLANK).match(text, mark.end())
    return filler.end() if filler else mark.end()


def _choice_text(rest: str, question: Question | None) -> frozenset[str] | None:
    """The choice whose whole text stands here instead of its letter."""
    if question is None:
        return None
    line = re.split(r"[\n。]", rest, maxsplit=1)[0]
    for said in (line, re.split(r"[,、;:]|\.(?!\d)", line, maxsplit=1)[0]):
        choices = zip(question.letters, question.choices, strict=True)
        same = [letter for letter, choice in choices if _bare(said) and _bare(said) == _bare(normal(choice))]
        if len(same) == 1:
            return frozenset(same)
    return None


def _bare(words: str) -> str:
    """A choice's words without quotes, brackets and full stops around them."""
    return _DECORATION.sub("", words).strip(" .,、。です[]{}").casefold()


def _essence(words: str) -> str:
    """Words without what printing changes."""
    return "".join(one for one in normal(words).casefold() if one.isalnum())


def _alone(line: str, allowed: str, question: Question | None) -> frozenset[str] | None:
    """The letters of a line that is nothing but the answer: "b,d", or "b: 硫化水素中毒" in the choice's own words.

    The words must be the choice's, as far as both are in one script: "C. difficile infection" and "D dimer" are no
    answers, "c (retinal photocoagulation)" is one.
    """
    found = bare_list(line, allowed)
    if found is None:
        return None
    letters, words = found
    if not words:
        return letters
    (letter,) = letters
    if question is not None:
        own, said = _essence(question.choices[question.letters.index(letter)]), _essence(words)
        if said and (own.startswith(said) or said.startswith(own)):
            return letters
        if own.isascii() == said.isascii():
            return None
    label = _LABEL.match(line)
    return letters if label and not _SPECIES.match(line) and not _REFUSES.search(words) else None


def _whole(text: str, allowed: str, question: Question | None) -> Found:
    """A reply that is nothing but the answer."""
    if "\n" in text:
        return None, None
    by_text = _choice_text(text, question)
    if by_text is not None:
        return by_text, "choice text"
    return _alone(text, allowed, question), "bare"


def _last_line(text: str, allowed: str, question: Question | None) -> Found:
    """A list alone on the last line; one that only repeats it may stand above."""
    *above, last = text.split("\n")
    if not above or not _STARTS_BARE.match(last):
        return None, None
    letters = _alone(last, allowed, question)
    return (
        (letters, "last line") if letters is not None and _none_but(letters, above, allowed, question) else (None, None)
    )


def _first_line(text: str, allowed: str, question: Question | None) -> Found:
    """A list alone on the first line, above an explanation that names no other."""
    first, *below = text.split("\n")
    letters = _alone(first, allowed, question)
    return (
        (letters, "first line")
        if letters is not None and _none_but(letters, below, allowed, question)
        else (None, None)
    )


def _none_but(letters: frozenset[str], lines: list[str], allowed: str, question: Question | None) -> bool:
    """Whether no line is a bare list of other letters, as it would be where the choices are only listed."""
    return all(_alone(line, allowed, question) in (None, letters) for line in lines)


def _concluded(text: str, allowed: str, question: Question | None) -> Found:
    """「よって b が正しい」, "Therefore, b.", or else one and the same 「b が正解」 wherever it is said."""
    drawn: list[tuple[int, frozenset[str]]] = []
    said: set[frozenset[str]] = set()
    for verdict in _CHOSEN.finditer(text):
        begin = max(text.rfind("。", 0, verdict.start()), text.rfind("\n", 0, verdict.start())) + 1
        sentence = text[max(begin, verdict.start() - 80) : verdict.start()]
        letters = list_before(sentence, allowed)
        if letters is None:
            continue
        if _CONCLUSION.match(sentence.lstrip()):
            drawn.append((verdict.start(), letters))
        elif not verdict["weak"]:
            said.add(letters)
    for conclusion in _CONCLUSION.finditer(text):
        found = bare_list(re.split(r"[。\n]", text[conclusion.end() : conclusion.end() + 60], maxsplit=1)[0], allowed)
        if found is not None and not found[1]:
            drawn.append((conclusion.end(), found[0]))
    if drawn:
        return max(drawn, key=lambda one: one[0])[1], "conclusion"
    return (said.pop(), "conclusion") if len(said) == 1 else (None, None)


def _find_number(text: str) -> tuple[str | None, str | None]:
    """The last marked number, a bare one, or the one that is concluded."""
    for mark in _marks(text):
        begin = _behind(text, mark)
        named = _NAMED_NUMBER.match(text, begin)
        number = number_at(text, begin) or (number_at(text, named.end()) if named else None)
        if number is not None:
            return number, "boxed" if mark[0] == "boxed:" else "marker"
    bare = _BARE_NUMBER.fullmatch(text)
    if bare:
        return number_at(text, bare.start("number")), "bare"
    concluded = list(_CONCLUDED_NUMBER.finditer(text))
    return (number_at(text, concluded[-1].end()), "conclusion") if concluded else (None, None)
