"""Phrases around an answer: those that announce it, put it under a condition, or retract it."""

import re

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
    r"^[ \t・•*-]{0,8}(?:\d{1,2}[.)][ \t]*)?[\[(〔<]{0,2}[ \t]*"
    r"(?P<name>[1-3]つ目(?:の(?:答え|解答|正解))?"
    r"|(?:答え|回答|解答|正解)[ \t]?[1-3]?|正答"
    r"|最終(?:的な)?(?:回答|解答|答え|結論|判断|選択)|結論|答|解|こたえ|コタエ|選択肢|選択|結果|判定"
    r"|正しい(?:選択肢|もの|の|肢)"
    r"|(?:(?:the|my|your|final|best|correct|right|chosen|selected|most[ \t]appropriate)[ \t]+){0,3}(?:answer"
    r"|ans|option|choice|response|decision|verdict)"
    r"|conclusion|solution|correct|final|A)(?:[ \t]*(?:番号|letter))?"
    r"[ \t]*(?P<close>[\])〕>]{0,2})[ \t]*(?P<joint>(?:[:.=)、→⇒>-]|[–—])?)[ \t]*(?P<line>(?:[ \t]*\n){0,3})[ \t]*",
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
    r"(?:^|(?<=[\n。、,.!?\s…—–]))(?:(?:いや|いえ|違う|違います|ちがう|訂正(?:します|すると)?|修正(?:します"
    r"|すると)?|間違えました"
    r"|すみません|失礼(?:しました)?|正しくは|no|wait|actually|correction|sorry|scratch[ ]that"
    r"|on[ ]second[ ]thought|rather|i[ ]mean"
    r"|hold[ ]on|make[ ]that|hmm)(?![a-z])[、,。.:;!\s…—–-]{1,4}){1,4}"
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
    r"(?:したがって|従って|よって|以上(?:より|から)|ゆえに|故に|結論として|therefore|thus|hence)[、,]?\s*", re.I
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
