"""The words of an answer: a question's letters and choices, the phrases around an answer, the marks before it."""

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
    return "".join(char for char in normal(words).casefold() if char.isalnum())


def choices_at(text: str, start: int, asked: AnswerSpace) -> tuple[frozenset[str], int] | None:
    """Return the choices whose own words begin at `start`, one or a list, and the place after them."""
    letters: set[str] = set()
    end = start
    at = start
    while (choice := _choice_at(text, at, asked)) is not None:
        letter, end = choice
        letters.add(letter)
        gap = _SEPARATOR.match(text, end)
        if gap is None or _choice_at(text, gap.end(), asked) is None:
            break
        at = gap.end()
    if not letters or len(letters) == len(asked.choices) or not _BOUNDARY.match(text, end):
        return None
    return frozenset(letters), end


def _choice_at(text: str, start: int, asked: AnswerSpace) -> tuple[str, int] | None:
    """Return the longest choice whose own words begin at `start`."""
    if not asked.choices or start >= len(text):
        return None
    part = text[start : start + _LONGEST].split("\n", 1)[0]
    spoken = [(char, place) for place, sign in enumerate(part) for char in sign.casefold() if char.isalnum()]
    folded = "".join(spelt for spelt, _ in spoken)
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


NAMED = r"(?:の?(?:番号|記号|選択肢|肢|欄))?[ \t]*(?:として)?(?:は|が|[:=→⇒])?"
_SURELY = (
    r"(?:[ \t]+(?:most[ \t]+likely|likely|probably|clearly|therefore|thus|definitely|indeed|simply|still|hence|choice"
    r"|letter))*"
)
IS = (
    r"s?\s*(?:(?:is|are|would\s+be|must\s+be|should\s+be|has\s+to\s+be|will\s+be|to\s+be)\b"
    rf"{_SURELY}\s*:?|[:=]|[-–—]\s|→)"
)
MARK = re.compile(
    r"boxed:|tagged:|【\s*(?:最終)?(?:回答|解答|答え|答|正解|正答|結論|answer)\s*】"
    rf"|回答{NAMED}|解答{NAMED}|答え{NAMED}|正解{NAMED}|正答{NAMED}"
    rf"|answer{IS}|option{IS}|choice{IS}|(?:correct|right|best|true)\s(?:one|statement)s?\s(?:is|are)\b{_SURELY}"
    r"|choose\b|chose\b|select\b|pick\b|go\s+with\b"
)
"""Every branch begins with literal letters, so that the search skips any place where no mark can begin."""
CONNECTORS = ":=】はが→⇒-–—"

HEADING = re.compile(
    r"^[ \t・•*-]{0,8}(?:\d{1,2}[.)][ \t]*)?[\[(〔<〈《≪«]{0,2}[ \t]*"
    r"(?P<name>[1-3]つ目(?:の(?:答え|解答|正解))?"
    r"|(?:答え|回答|解答|正解)[ \t]?[1-3]?|正答"
    r"|最終(?:的な)?(?:回答|解答|答え|結論|判断|選択)|結論|答|解|こたえ|コタエ|選択肢|選択|結果|判定"
    r"|正しい(?:選択肢|もの|の|肢)"
    r"|(?:(?:the|my|your|final|best|correct|right|chosen|selected|most[ \t]appropriate)[ \t]+){0,3}(?:answer"
    r"|ans|option|choice|response|decision|verdict)"
    r"|conclusion|solution|correct|final|A)(?:[ \t]*(?:番号|letter))?"
    r"[ \t]*(?P<close>[\])〕>〉》≫»]{0,2})[ \t]*(?P<joint>(?:[:.=)、→⇒>-]|[–—])?)[ \t]*"
    r"(?P<line>(?:[ \t]*\n){0,3})[ \t]*",
    re.M | re.I,
)
"""Headings that announce an answer only if their line has nothing else: 「答：」, "Ans:", "A:"."""
LOOSE_NAMES = ("answer", "ans", "答", "こたえ")
"""Endings of headings that need nothing between them and the answer."""
LABELS = ("option", "choice", "選択肢", "選択")
"""Endings of headings that label each choice in turn where no colon follows them."""

_CLAUSE = re.compile(r"[。\n!?;]|[.](?=\s)|が、|けれど|けど、|しかし|\b(?:but|however)\b|ところ、")
_CONDITION = re.compile(
    r"もし|仮に|万一|たとえ[^ば]|(?:問|聞|尋|訊)(?:われ|うて|かれ|ねられ|く|う)[^。\n]{0,8}(?:なら|場合|とき|ば|たら)"
    r"|\bin\s+which\s+case\b"
    r"|^\W*(?:if|suppose|supposing|assuming|were|had|unless)\b|\bif\s+(?:the\s+question|it|we|you)\b"
    r"|(?:なら|ならば|であれば|だったら|とすれば|とすると|としたら"
    r"|(?<!この)(?<!その)(?<!本例の)(?<!今回の)場合(?:は|には)?)[、,]?\s*$",
    re.I,
)
_NO_CONDITION = re.compile(
    r"(?:選ぶ|挙げる|選択する|答える|言う|いう|選べと言われた|強いて言え|あえて選ぶ)(?:の)?(?:なら|なら?ば"
    r"|ば)[、,]?\s*$"
)
_OTHER = re.compile(
    r"(?:不|非|誤|誤った|間違った|誤りの|別の|他の|当初の|最初の|次に|紛らわしい|よくある誤|多い誤)$"
    r"|\b(?:incorrect|wrong|false|tempting|alternative|other|initial|first|previous|second|another|distractor"
    r"|possible|not|n't"
    r"|never|cannot|don't|no|to|we|must|should)\s+(?:the\s+|an?\s+)?(?:possible\s+|best\s+|correct\s+|right\s+)?$",
    re.I,
)
_ASIDE = re.compile(
    r"^[\W_]*(?:補足|注(?:意|釈|記)?[:)]|備考|参考|なお|ちなみに|余談|例外|note\b|n\.?b\.?|caveat|aside"
    r"|by the way|for reference)",
    re.I,
)
CORRECTION = re.compile(
    r"(?:^|(?<=[\n。、,.!?\s…—–])|(?<=[【(※])(?=訂正|修正|正しくは|correct))(?:(?:いや|いえ|違う|違います|ちがう|訂正(?:します|すると)?|修正(?:します"
    r"|すると)?|間違えました"
    r"|すみません|失礼(?:しました)?|正しくは|no|wait|actually|correction|sorry|scratch[ ]that"
    r"|on[ ]second[ ]thought|rather|i[ ]mean"
    r"|hold[ ]on|make[ ]that|hmm)(?![a-z])[】)、,。.:;!\s…—–-]{1,4}){1,4}"
    r"(?:(?:やはり|やっぱり|本当は|それは|これは|本問は|本問では|正解は|正答は|答えは|it|that|this"
    r"|the[ ](?:correct[ ]|right[ ]|final[ ])?answer)"
    r"(?:'s|[ ](?:is|should[ ]be|must[ ]be|would[ ]be))?[、,:\s]*){0,2}",
    re.I,
)
WITHDRAWN = re.compile(
    r"(?:いや|いえ)[、,…][^\n]{0,4}(?:違|ちが|待|誤)|間違えました|(?:答え|回答|解答)を?(?:訂正|撤回)(?:します"
    r"|する)|\bwait,\s+(?:no|that)\b|\bno,\s+wait\b"
    r"|\bscratch\s+that\b|\bthat(?:'s|\s+is)\s+(?:wrong|not\s+right)\b|\blet\s+me\s+(?:reconsider|rethink"
    r"|re-think|re-check|recheck)\b",
    re.I,
)
CONCLUSION = re.compile(
    r"(?:したがって|従って|よって|以上(?:より|から)|ゆえに|故に|結論として|結論\s*:|therefore|thus|hence)[、,]?\s*",
    re.I,
)
_RIGHT_ONES = re.compile(r"\b(?:correct|right|best|appropriate|true|chosen|selected)\s+$", re.I)
_SPAN = 120


def clause_before(text: str, place: int) -> str:
    """Return the part of the clause before `place`."""
    part = text[max(0, place - _SPAN) : place]
    begin = 0
    for end in _CLAUSE.finditer(part):
        begin = end.end()
    return part[begin:]


def under_condition(text: str, place: int) -> bool:
    """Return whether an answer at `place` is for another question: after "もし…なら", "If it were asked ...".

    >>> under_condition("もし酸素を問うなら答えは a", 10)
    True
    >>> under_condition("この場合、答えは a", 5)
    False
    """
    before = clause_before(text, place)
    return bool(_CONDITION.search(before)) and not _NO_CONDITION.search(before)


def of_another(text: str, place: int) -> bool:
    """Return whether a mark at `place` names something other than the answer: 「不正解は」, "the wrong answer is"."""
    return bool(_OTHER.search(text[max(0, place - 40) : place]))


def enumerates(text: str, mark: re.Match[str]) -> bool:
    """Return whether a mark only begins a list of the choices: "The options are a) ..."."""
    if not mark[0].lower().startswith(("options", "choices")):
        return False
    return not _RIGHT_ONES.search(text[max(0, mark.start() - 20) : mark.start()])


def in_an_aside(text: str, place: int) -> bool:
    """Return whether the line at `place` begins as a note does: 「補足: …」, "Note: ..."."""
    begin = max(text.rfind("\n", 0, place), text.rfind("。", 0, place), place - _SPAN) + 1
    return bool(_ASIDE.match(text[begin:place]))


_FILLER = re.compile(
    r"(?:\n[ \t]*[-*•・][ \t]+|[\s:=は、→⇒]|以下の(?:通り|とおり|[2-5二三]つ)(?:です|である)?[。:]?"
    r"|次の(?:通り|とおり)(?:です)?"
    r"|それぞれ|(?:最も適切なのは"
    r"|正しいのは)|options?\s|letters?\s)*",
    re.I,
)
_BLANK = re.compile(r"[ \t]*(?:\n+(?=[^\n]{1,12}\Z))?")
_MOST_MARKS = 300


def marks_of(text: str) -> list[re.Match[str]]:
    """Return the places where an answer is announced, the last one first."""
    lowered = text.lower()
    same = lowered if len(lowered) == len(text) else text
    marks = [mark for mark in MARK.finditer(same) if not _inside_word(text, mark.start())][-_MOST_MARKS:]
    marks += list(HEADING.finditer(text))[-_MOST_MARKS:]
    return sorted(marks, key=lambda mark: (mark.start(), mark.end()), reverse=True)


def _inside_word(text: str, start: int) -> bool:
    """Return whether an English mark is the tail of a longer word."""
    letter = text[start - 1 : start] if start else ""
    return text[start].isascii() and letter.isascii() and letter.isalpha()


def behind(text: str, mark: re.Match[str]) -> int:
    """Return the place where the answer after a mark begins."""
    connected = mark[0].rstrip()[-1:] in CONNECTORS
    filler = (_FILLER if connected else _BLANK).match(text, mark.end())
    return filler.end() if filler else mark.end()


def is_firm(text: str, start: int, end: int, how: str) -> bool:
    """Return whether an answer has a distinct form: a box, a tag, a separate line, or the reply's first words."""
    if how in ("boxed", "tag"):
        return True
    line = text.rfind("\n", 0, start) + 1
    if not text[:line].strip() and start - line < 40 and not re.search(r"[。!?]|\.\s", text[line:start]):
        return True
    rest = text[end : end + 60].split("\n", 1)[0]
    return not text[line:start].strip(" \t#>*・•-(") and not re.sub(r"[\s。.)\]】]|です|である", "", rest)
