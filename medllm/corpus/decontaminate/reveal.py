"""Remove tags, entities, escapes and bracketed readings, which hide an exam item from a comparison of characters."""

import html
import re
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.int64]

_ESCAPE = re.compile(r"\\+u(?:([dD][89abAB][0-9a-fA-F]{2})\\+u([dD][c-fC-F][0-9a-fA-F]{2})|([0-9a-fA-F]{4}))")
"""One character, or the two halves of one beyond the first plane."""
_ENTITY = re.compile(r"&(?:#[0-9]+;?|#[xX][0-9a-fA-F]+;?|[^\t\n\f <&#;]{1,32};?)")
_LINE_ESCAPE = re.compile(r"\\+[nrt](?![a-zA-Z])")
_RUBY = re.compile(r"<rp\b[^<>]*>.*?</rp\s*>|<rt\b[^<>]*>[^<]*(?:</rt\s*>)?", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"</?[A-Za-z][^<>]{0,200}>|<!--.{0,500}?-->", re.DOTALL)
_READING = re.compile(r"[(（《〈\[［【｛{](?<=[一-龥々〆ヶ].)[ぁ-ゖァ-ヺー・･ 　]{1,24}[)）》〉\]］】｝}]")
"""Kana in brackets right after a kanji; the pattern begins with the bracket, so that the search jumps to it."""


def _character(found: re.Match[str]) -> str:
    if found[1]:
        return chr(0x10000 + ((int(found[1], 16) & 0x3FF) << 10) + (int(found[2], 16) & 0x3FF))
    code = int(found[3], 16)
    return "\ufffd" if 0xD800 <= code < 0xE000 else chr(code)


def _entity(found: re.Match[str]) -> str:
    return html.unescape(found[0])


_STEPS: tuple[tuple[str, re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    ("\\", _ESCAPE, _character),
    ("\\", _LINE_ESCAPE, lambda _: "\n"),
    ("&", _ENTITY, _entity),
    ("&", _ENTITY, _entity),  # a page that was escaped twice
    ("<", _RUBY, lambda _: ""),
    ("<", _TAG, lambda _: ""),
    ("", _READING, lambda _: ""),
)
"""Replacements in this order, each for texts that contain the sign in front."""


def reveal(text: str) -> str:
    r"""Return the text as a reader sees it: without markup, escapes of characters, and readings behind kanji.

    >>> reveal("<b>虫垂炎</b>（ちゅうすいえん）で&nbsp;\\u8aa4るのはどれか")
    '虫垂炎で\xa0誤るのはどれか'
    """
    for sign, pattern, become in _STEPS:
        if sign in text:
            text = pattern.sub(become, text)
    return text


def reveal_places(text: str) -> tuple[str, Places, Places]:
    """Return the text as a reader sees it, and where each of its characters begins and ends in the original text.

    >>> shown, begins, ends = reveal_places("<b>&lt;</b>値")
    >>> shown, begins.tolist(), ends.tolist()
    ('<値', [3, 11], [7, 12])
    """
    begins = np.arange(len(text))
    ends = begins + 1
    for sign, pattern, become in _STEPS:
        found = list(pattern.finditer(text)) if sign in text else []
        if not found:
            continue
        pieces: list[str] = []
        first: list[Places] = []
        last: list[Places] = []
        at = 0
        for one in found:
            new = become(one)
            pieces += [text[at : one.start()], new]
            first += [begins[at : one.start()], np.full(len(new), begins[one.start()])]
            last += [ends[at : one.start()], np.full(len(new), ends[one.end() - 1])]
            at = one.end()
        text = "".join((*pieces, text[at:]))
        begins, ends = np.concatenate([*first, begins[at:]]), np.concatenate([*last, ends[at:]])
    return text, begins, ends
