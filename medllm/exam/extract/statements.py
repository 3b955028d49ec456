"""Answers given in a sentence, in the question's own words, by a verdict on every choice, or under a key."""

import ast
import json
import re
from typing import Any

from medllm.exam.extract.choice_list import letters_at, verdicts
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
    r"|答え|1つ|2つ|3つ|誤り|間違い))(?:は|が|:|を(?:一つ|1つ)?選ぶ(?:と|なら))[、,:\s]*"
)
_RIGHT = re.compile(
    r"(?:最も)?(?:正しい|適切な|妥当な|該当する|当てはまる|あてはまる|正解の|正解となる|選ぶべき|選択すべき"
    r"|考えられる|疑われる|疑うべき)[^\n。]{0,8}$"
)
_WRONG = re.compile(
    r"誤|間違|不適|正しくない|適切で(?:は)?ない|該当しない|当てはまらない|あてはまらない|ない(?:の|もの|肢|記述)"
)
_TAIL = re.compile(
    r"\s*(?:の[1-5二三四五]つ|だけ|のみ)?\s*(?:です(?:ね)?|である|だ|でしょう|だろう|になる|になります|となる|となります"
    r"|(?:だ)?と(?:思い?|考え|判断し|推定し|推測し|答え|し)"
    r"(?:ます|る|う|られる|られます)?|かと思います|が(?:最も)?(?:正しい|正解|正答|適切|妥当|該当する"
    r"|当てはまる|あてはまる|答え)(?:と(?:考え|思い?)(?:ます|る|う|られる|られます)|である|です|だ)?"
    r"|を(?:選びます|選ぶ|選択します|選択する|選んだ|選択)|で(?:間違いない|OK|いい|よい)(?:です|と思います)?"
    r"|is\s+(?:the\s+)?(?:correct|right|best)(?:\s+(?:one|answer|option|choice))?"
    r"|seems\s+(?:correct|right))?(?P<rest>[。.!\s]*)(?:$|(?=\n))",
    re.I,
)
_WRONG_ONE = re.compile(
    r"(?:選択肢\s*)?(?P<letter>[a-hA-H])\s*が(?:誤り|間違い|誤っている|間違っている|不適切)(?:である|です|だ)?[。.!\s]*"
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
        if len(sentence) <= _LONGEST and (letters := _sentence(sentence, asked)) is not None:
            return letters
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
        letters = letters_at(sentence, head.end(), asked.letters, lenient=True)
        if letters is not None and _ends(sentence, letters[1], letters[0], asked):
            return letters[0]
    if asked.negative and (wrong := _WRONG_ONE.fullmatch(sentence, start)) and wrong["letter"].lower() in asked.letters:
        return frozenset(wrong["letter"].lower())
    words = choices_at(sentence, start, asked)
    if words is not None and _SAID.match(sentence, words[1]) and _TAIL.fullmatch(sentence, words[1]):
        return None if asked.negative else words[0]
    letters = letters_at(sentence, start, asked.letters, lenient=False)
    if letters is None or not _ends(sentence, letters[1], letters[0], asked):
        return None
    return (
        letters[0]
        if start or (_TAIL.fullmatch(sentence, letters[1]) and sentence[letters[1] :].strip(" 。.!)]\n"))
        else None
    )


def _ends(sentence: str, end: int, letters: frozenset[str], asked: AnswerSpace) -> bool:
    """Return whether only the sentence's ending follows the letters, with or without the choice's own words."""
    if _TAIL.fullmatch(sentence, end):
        return True
    if len(letters) > 1:
        return False
    (letter,) = letters
    named = choices_at(sentence, end + 1, asked) if sentence.startswith("の", end) else None
    if named is not None and named[0] == letters:
        return _TAIL.fullmatch(sentence, named[1]) is not None
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
    judgements = verdicts(text)
    if set(judgements) != set(asked.letters):
        return None
    lines = sum(1 for line in text.split("\n") if line.strip())
    right_asked = re.search("正しい|正解|適切|該当|あてはまる|当てはまる|妥当|correct|appropriate|true", asked.text)
    if lines < len(judgements) and not (right_asked and not asked.negative):
        return None
    chosen = {letter for letter, verdict in judgements.items() if verdict is not asked.negative}
    return frozenset(chosen) if len(chosen) == asked.wanted else None


_KEYS = (
    re.compile(r"(?:finalanswer|answer|answers|ans|最終回答|回答|解答|答え|答|正解|正答)"),
    re.compile(
        r"(?:the|my|your|final|best|correct|selected|chosen|predicted|model)*"
        r"(?:answer|ans|choice|option|letter|prediction|selection|response|diagnosis)s?(?:letter|choice|option"
        r"|key|id|text)?|final"
        r"|選択|選択肢|結論|最終答え|解答番号|回答番号|正解番号"
    ),
)
"""Names of an answer's key without blanks and underscores, plain names first."""
_NO_KEY = re.compile(r"choices|options")
_OBJECT = re.compile(r"\{\s*[\"']")
_FENCE = re.compile(r"\A\s*(?:`{3,}|~{3,})?\s*(?:json|python|py|jsonc)?\s*(?=[{\[])", re.I)
_AFTER = re.compile(r"[\s`~.。]*")
_BROKEN = re.compile(
    r"(?<![\\\w])[\"'](?P<key>[^\"'\\\n]{1,30})[\"']\s{0,20}:\s{0,20}"
    r"(?:\"(?P<text>[^\"\\\n]{0,300})\"|'(?P<quoted>[^'\\\n]{0,300})'|\[(?P<list>[^\[\]\n]{0,300})\]"
    r"|(?P<number>-?[\d.]{1,20})(?=\s*[,}]))"
)
_HEADED = re.compile(
    r"\A\W{0,6}(?:final[ _]?answer|answer|回答|解答|答え)\W{0,4}[:=]\W{0,3}?(?P<value>[^\n]{0,200})\n\s*"
    r"\W{0,6}(?:confidence|確信度|信頼度|自信|explanation|cot|解説)\W{0,4}[:=]",
    re.I,
)
_LONGEST_LITERAL = 20_000
_DEEPEST = 40
_TRIES = 8


def keyed_value(text: str) -> str | None:
    """Return the value of the answer's key in a reply that has keys: "" if it is empty, None for other replies.

    >>> keyed_value('{"answer": ["b", "d"], "explanation": "The answer is a."}')
    'b, d'
    >>> keyed_value("The answer is b.") is None
    True
    """
    head = _FENCE.match(text)
    if head is not None and text[head.end()] == "{":
        keyed = _object_at(text, head.end())
        if keyed is not None:
            return _answer_of(keyed[0])
        return _broken(text)
    if head is not None and _OBJECT.match(text, head.end() + 1):
        keyed = _object_at(text, head.end() + 1)
        return _answer_of(keyed[0]) if keyed is not None else None
    headed = _HEADED.match(text)
    return headed["value"] if headed else _embedded(text)


def _embedded(text: str) -> str | None:
    """Return the answer in the object that ends a reply of words."""
    starts = [place.start() for place in _OBJECT.finditer(text)][-_TRIES:]
    for start in starts:
        keyed = _object_at(text, start)
        if keyed is not None and _AFTER.fullmatch(text, keyed[1]):
            value = _answer_of(keyed[0])
            return value or None
    return None


def _object_at(text: str, start: int) -> tuple[dict[str, Any], int] | None:
    """Return the object that begins at `start`, and its end."""
    try:
        value, end = json.JSONDecoder(strict=False).raw_decode(text, start)
    except (ValueError, RecursionError):
        end = _closing(text, start)
        try:
            value = ast.literal_eval(text[start:end]) if end else None
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            value = None
    return (value, end) if isinstance(value, dict) else None


def _closing(text: str, start: int) -> int:
    """Return the end of the braces that open at `start`; 0 where they do not close."""
    depth, quote, place = 0, "", start
    last = min(len(text), start + _LONGEST_LITERAL)
    while place < last:
        sign = text[place]
        if sign == "\\":
            place += 1
        elif quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'":
            quote = sign
        elif sign in "{[(":
            depth += 1
            if depth > _DEEPEST:
                return 0
        elif sign in "}])":
            depth -= 1
            if depth == 0:
                return place + 1
        place += 1
    return 0


def _answer_of(fields: dict[str, Any], deep: int = 2) -> str:
    """Return the value of the best key, as text; "" where there is none."""
    named = [(re.sub(r"[\s_-]", "", str(key)).casefold(), value) for key, value in fields.items()]
    for keys in _KEYS:
        for name, value in named:
            if keys.fullmatch(name) and not _NO_KEY.fullmatch(name):
                return _written(value, deep)
    if deep:
        for value in fields.values():
            if isinstance(value, dict) and (inner := _answer_of(value, deep - 1)):
                return inner
    marks = {name: value for name, value in named if len(name) == 1 and "a" <= name <= "h"}
    if len(marks) >= 3 and len(marks) == len(named):
        return "\n".join(f"{name}: {_mark(value)}" for name, value in marks.items())
    return ""


def _mark(value: Any) -> str:  # noqa: ANN401
    """Return a verdict as words."""
    return {True: "正しい", False: "誤り"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _written(value: Any, deep: int) -> str:  # noqa: ANN401
    """Return a value as the text in which an answer is searched."""
    if value is None or isinstance(value, bool):
        return ""
    if isinstance(value, list | tuple | set):
        return ", ".join(_written(entry, deep) for entry in value)
    if isinstance(value, dict):
        if not deep:
            return ""
        inner = _answer_of(value, deep - 1)
        return inner or next((str(value[key]) for key in ("value", "label", "text", "key") if key in value), "")
    return str(value)


def _broken(text: str) -> str | None:
    """Return the answer's value in an object that does not close or is not valid JSON."""
    fields = []
    for field in _BROKEN.finditer(text):
        fields.append((re.sub(r"[\s_-]", "", field["key"]).casefold(), field))
        if len(fields) > 50:
            break
    for keys in _KEYS:
        for name, field in fields:
            if keys.fullmatch(name) and not _NO_KEY.fullmatch(name):
                return next(value for value in field.group("text", "quoted", "list", "number") if value is not None)
    return "" if fields else None
