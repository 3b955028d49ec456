"""Replies with keys: one JSON object, one Python dict, or lines "answer: ...", "explanation: ..."."""

import ast
import json
import re
from typing import Any

_KEYS = (
    re.compile(r"(?:finalanswer|answer|answers|ans|最終回答|回答|解答|答え|答|正解|正答)"),
    re.compile(
        r"(?:the|my|your|final|best|correct|selected|chosen|predicted|model)*"
        r"(?:answer|ans|choice|option|letter|prediction|selection|response|diagnosis)s?(?:letter|choice|option"
        r"|key|id|text)?"
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
        found = _object_at(text, head.end())
        if found is not None:
            return _answer_of(found[0])
        return _broken(text)
    if head is not None and _OBJECT.match(text, head.end() + 1):
        found = _object_at(text, head.end() + 1)
        return _answer_of(found[0]) if found is not None else None
    headed = _HEADED.match(text)
    return headed["value"] if headed else _embedded(text)


def _embedded(text: str) -> str | None:
    """Return the answer in the object that ends a reply of words."""
    starts = [place.start() for place in _OBJECT.finditer(text)][-_TRIES:]
    for start in starts:
        found = _object_at(text, start)
        if found is not None and _AFTER.fullmatch(text, found[1]):
            value = _answer_of(found[0])
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


def _answer_of(found: dict[str, Any], deep: int = 2) -> str:
    """Return the value of the best key, as text; "" where there is none."""
    named = [(re.sub(r"[\s_-]", "", str(key)).casefold(), value) for key, value in found.items()]
    for keys in _KEYS:
        for name, value in named:
            if keys.fullmatch(name) and not _NO_KEY.fullmatch(name):
                return _written(value, deep)
    if deep:
        for value in found.values():
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
        return ", ".join(_written(one, deep) for one in value)
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
