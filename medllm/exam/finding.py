"""The rules that find an answer in a reply, strongest first: marked, whole, last line, conclusion, first line."""

import re

from medllm.exam.letters import bare_list, letters_at, list_before, number_at
from medllm.exam.question import Question, write_answer
from medllm.exam.reply import normal

_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_LATEX = re.compile(r"\\(?:text|textbf|mathrm|mathbf|bf|rm)\b\s*|[{}\\]")
_DECORATION = re.compile(r'[*`$「」『』“”"]+')
_MARK = re.compile(
    r"(?P<boxed>boxed:)"
    r"|【\s*(?:最終)?(?:回答|解答|答え|答|正解|正答|結論|answer)\s*】"
    r"|(?:最終)?(?:回答|解答|答え|正解|正答)(?:の?(?:番号|記号|選択肢|肢))?[ \t]*(?:として)?(?:は|が|[:=→⇒])?"
    r"|(?<![a-z])(?:final\s+|correct\s+)?(?:answers?|options?|choices?)\s*(?:(?:is|are|would\s+be)\b\s*:?|[:=])",
    re.I,
)
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
    r"|(?P<weak>正しい|適切|妥当|該当|correct|right|best))(?!とは|では|でな|くな)",
    re.I,
)
_BARE_NUMBER = re.compile(r"[^\d\n❶-❽]{0,8}(?P<number>[\d❶-❽][\d,.❶-❽\s:=]*)[^\d\n]{0,20}")


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


def _marked(text: str, allowed: str, question: Question | None) -> Found:
    """The last list that stands behind "答え", 【回答】, "answer is", a JSON key or in a box."""
    for mark in reversed(list(_MARK.finditer(text))):
        begin = _behind(text, mark)
        how = "boxed" if mark["boxed"] else "marker"
        letters = letters_at(text, begin, allowed, lenient=mark[0].rstrip()[-1:] in _CONNECTORS)
        if letters is not None:
            return letters, how
        by_text = _choice_text(text[begin:], question)
        if by_text is not None:
            return by_text, "choice text"
    return None, None


def _behind(text: str, mark: re.Match[str]) -> int:
    connected = mark[0].rstrip()[-1:] in _CONNECTORS
    filler = (_FILLER if connected else _BLANK).match(text, mark.end())
    return filler.end() if filler else mark.end()


def _choice_text(rest: str, question: Question | None) -> frozenset[str] | None:
    """The choice whose whole text stands here instead of its letter."""
    said = re.split(r"[\n。]", rest, maxsplit=1)[0].strip(" .,、です[]{}")
    if question is None or not said:
        return None
    same = [letter for letter, choice in zip(question.letters, question.choices, strict=True) if _same(choice, said)]
    return frozenset(same) if len(same) == 1 else None


def _same(choice: str, said: str) -> bool:
    return _DECORATION.sub("", normal(choice)).strip(" .,、。です[]{}").casefold() == said.casefold()


def _whole(text: str, allowed: str, question: Question | None) -> Found:
    """A reply that is nothing but the answer."""
    if "\n" not in text:
        letters = bare_list(text, allowed)
        if letters is not None:
            return letters, "bare"
        by_text = _choice_text(text, question)
        return by_text, "choice text" if by_text is not None else None
    return None, None


def _last_line(text: str, allowed: str, question: Question | None) -> Found:
    """A list alone on the last line."""
    lines = text.split("\n")
    if len(lines) < 2 or not re.fullmatch(r"[\s(\[]*[a-hA-H][^\n]{0,20}", lines[-1]):
        return None, None
    letters = bare_list(lines[-1], allowed)
    labels = any(bare_list(line, allowed) is not None for line in lines[:-1])
    return (None, None) if labels or letters is None else (letters, "last line")


def _first_line(text: str, allowed: str, question: Question | None) -> Found:
    """A list alone on the first line, above an explanation that names no other."""
    first, _, rest = text.partition("\n")
    letters = bare_list(first, allowed)
    if letters is None or any(bare_list(line, allowed) is not None for line in rest.split("\n") if line.strip()):
        return None, None
    return letters, "first line"


def _concluded(text: str, allowed: str, question: Question | None) -> Found:
    """「よって b が正しい」, or else one and the same 「b が正解」 wherever it is said."""
    drawn: list[frozenset[str]] = []
    said: set[frozenset[str]] = set()
    for verdict in _CHOSEN.finditer(text):
        begin = max(text.rfind("。", 0, verdict.start()), text.rfind("\n", 0, verdict.start())) + 1
        sentence = text[max(begin, verdict.start() - 80) : verdict.start()]
        letters = list_before(sentence, allowed)
        if letters is None:
            continue
        if _CONCLUSION.match(sentence.lstrip()):
            drawn.append(letters)
        elif not verdict["weak"]:
            said.add(letters)
    if drawn:
        return drawn[-1], "conclusion"
    return (said.pop(), "conclusion") if len(said) == 1 else (None, None)


def _find_number(text: str) -> tuple[str | None, str | None]:
    for mark in reversed(list(_MARK.finditer(text))):
        number = number_at(text, _behind(text, mark))
        if number is not None:
            return number, "boxed" if mark["boxed"] else "marker"
    bare = _BARE_NUMBER.fullmatch(text)
    return (number_at(text, bare.start("number")), "bare") if bare else (None, None)
