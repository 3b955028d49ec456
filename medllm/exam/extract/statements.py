"""Answers given in a sentence, in the question's own words, or by a verdict on every choice."""

import re

from medllm.exam.extract.choice_list import letters_at
from medllm.exam.extract.option_verdicts import verdicts
from medllm.exam.extract.vocabulary import AnswerSpace, choices_at, essence

_FILLER = re.compile(
    r"(?:(?:おそらく|恐らく|たぶん|多分|きっと|私は|私の|本問は|本問では|この問題は|ここでは|したがって|従って"
    r"|よって|ゆえに|以上より|以上から|つまり"
    r"|結論として|結論は|消去法で|はい|なので|(?:一つ)?(?:選ぶ|挙げる|選択する|答える)(?:の)?なら|(?:強いて"
    r"|あえて)(?:言えば|選べば|選ぶなら)|最終的に(?:は)?"
    r"|it\s+(?:is|has\s+to\s+be|must\s+be|should\s+be)|it's|i\s+(?:think|believe|would\s+say)|i'd\s+say|probably|most\s+likely|definitely|sure|so"
    r"|my\s+pick\s+is|that\s+leaves|👉|◎|➡|✅|☑|✔|🎯|→|⇒|∴)"
    r"[、,:!\s]*){1,4}",
    re.I,
)
_HEAD = re.compile(
    r"(?P<words>[^\n。!?]{0,40}?(?:の|もの|肢|記述|対応|治療|検査|診断|疾患|処置|薬剤?|組合せ|組み合わせ|所見"
    r"|答え|1つ|2つ|3つ))(?:は|が|を(?:一つ|1つ)?選ぶ(?:と|なら))[、,:\s]*"
)
_RIGHT = re.compile(
    r"(?:最も)?(?:正しい|適切な|妥当な|該当する|当てはまる|あてはまる|正解の|正解となる|選ぶべき|選択すべき"
    r"|考えられる|疑われる|疑うべき)[^\n。]{0,8}$"
)
_WRONG = re.compile(
    r"誤|間違|不適|正しくない|適切で(?:は)?ない|該当しない|当てはまらない|あてはまらない|ない(?:の|もの|肢|記述)"
)
_TAIL = re.compile(
    r"\s*(?:の[1-5二三四五]つ)?\s*(?:です(?:ね)?|である|だ|でしょう|だろう|になる|になります|となる|となります"
    r"|(?:だ)?と(?:思い?|考え|判断し|推定し|推測し|答え|し)"
    r"(?:ます|る|う|られる|られます)?|かと思います|が(?:最も)?(?:正しい|正解|正答|適切|妥当|該当する"
    r"|当てはまる|あてはまる|答え)(?:と(?:考え|思い?)(?:ます|る|う|られる|られます)|である|です|だ)?"
    r"|を(?:選びます|選ぶ|選択します|選択する|選んだ|選択)|で(?:間違いない|OK|いい|よい)(?:です|と思います)?"
    r"|is\s+(?:the\s+)?(?:correct|right|best)(?:\s+(?:one|answer|option|choice))?"
    r"|seems\s+(?:correct|right))?(?P<rest>[。.!\s]*)(?:$|(?=\n))",
    re.I,
)
_SAID = re.compile(r"\s*(?:が|を選|is\s+the\s+(?:correct|right|best))")
_SENTENCE = re.compile(r"(?<=[。!?])|(?<=\w\w[.])(?=\s)|\n")
_LONGEST = 120


def stated(text: str, asked: AnswerSpace) -> frozenset[str] | None:
    """Return the letters that the last sentence, the first one, or the verdicts on all choices give.

    >>> from medllm.exam.extract.vocabulary import answer_space
    >>> sorted(stated("おそらくbです", answer_space(None)) or ())
    ['b']
    """
    tail = [part.strip() for part in _SENTENCE.split(text[-2 * _LONGEST :]) if part.strip()]
    head = [part.strip() for part in _SENTENCE.split(text[:_LONGEST]) if part.strip()]
    for sentence in [*tail[-1:], *head[:1]]:
        if len(sentence) <= _LONGEST and (found := _sentence(sentence, asked)) is not None:
            return found
    return _judged(text, asked)


def _sentence(sentence: str, asked: AnswerSpace) -> frozenset[str] | None:
    """Return the letters of a sentence that is an answer from its beginning to its end."""
    filler = _FILLER.match(sentence)
    start = filler.end() if filler else 0
    head = _HEAD.match(sentence, start)
    if head is not None and (_is_the_answer(head["words"], asked)):
        words = choices_at(sentence, head.end(), asked)
        if words is not None and _TAIL.fullmatch(sentence, words[1]):
            return words[0]
        found = letters_at(sentence, head.end(), asked.letters, lenient=True)
        if found is not None and _ends(sentence, found[1], found[0], asked):
            return found[0]
    words = choices_at(sentence, start, asked)
    if words is not None and _SAID.match(sentence, words[1]) and _TAIL.fullmatch(sentence, words[1]):
        return None if asked.negative else words[0]
    found = letters_at(sentence, start, asked.letters, lenient=False)
    if found is None or not _ends(sentence, found[1], found[0], asked):
        return None
    return (
        found[0] if start or (_TAIL.fullmatch(sentence, found[1]) and sentence[found[1] :].strip(" 。.!)]\n")) else None
    )


def _ends(sentence: str, end: int, letters: frozenset[str], asked: AnswerSpace) -> bool:
    """Return whether only the sentence's ending follows the letters, with or without the choice's own words."""
    if _TAIL.fullmatch(sentence, end):
        return True
    if len(letters) > 1:
        return False
    (letter,) = letters
    own = dict(asked.choices).get(letter)
    rest = essence(sentence[end:])
    return bool(own) and (
        rest == own or any(rest == f"{own}{copula}" for copula in ("です", "である", "だ", "と考えます", "になります"))
    )


def _is_the_answer(words: str, asked: AnswerSpace) -> bool:
    """Return whether words such as 「正しいのは」 name the choices that the question asks for."""
    folded = essence(words)
    if len(folded) >= 3 and folded in asked.text:
        return True
    if _WRONG.search(words):
        return asked.negative and asked.wanted > 0
    return bool(_RIGHT.search(words)) and not asked.negative


def _judged(text: str, asked: AnswerSpace) -> frozenset[str] | None:
    """Return the letters that verdicts on every choice, one per line, set apart as the question asks."""
    if not asked.wanted:
        return None
    found = verdicts(text)
    if set(found) != set(asked.letters):
        return None
    lines = sum(1 for line in text.split("\n") if line.strip())
    right_asked = re.search("正しい|正解|適切|該当|あてはまる|当てはまる|妥当|correct|appropriate|true", asked.text)
    if lines < len(found) and not (right_asked and not asked.negative):
        return None
    chosen = {letter for letter, verdict in found.items() if verdict is not asked.negative}
    return frozenset(chosen) if len(chosen) == asked.wanted else None
