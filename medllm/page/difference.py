"""Two replies side by side: sentences aligned, the words that differ marked, and where each answer was read."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import zip_longest
from urllib.parse import quote

from medllm.exam.extract.answer import answer_at
from medllm.exam.extract.completion import sentences
from medllm.exam.extract.reply import split_thinking
from medllm.exam.question import Question
from medllm.exam.record import Record
from medllm.page.html import LANGUAGES, LONGEST_CARD, both, safe, shortened, word
from medllm.page.live import LiveAnswers, clock
from medllm.side_by_side import Cell

MOST_SENTENCES = 400
"""Sentences of a reply above which nothing is aligned: the time grows with the square of their number."""

MOST_WORDS = 400
"""Words of a sentence above which it is marked as a whole."""

FURTHEST = 12
"""Sentences from the end within which the one is sought from which the answer was read."""

MOST_PAIRS = 20_000
"""Pairs of sentences between two equal ones above which they are put beside each other in their order alone."""

BESIDE = 0.3
"""Share of common letter pairs from which two sentences are put beside each other."""

LIKE = 0.4
"""How alike two sentences are, of 1, that are marked word by word; less alike ones are marked whole."""

_WORD = re.compile(r"[A-Za-z]+|\d+(?:[.,]\d+)*|[\u4e00-\u9fff々]+|[\u30a0-\u30ff]+|[\u3040-\u309f]+|\s+|.", re.DOTALL)
"""A run of letters of one script, a number, or one sign: Japanese has no blanks between words."""


@dataclass(frozen=True)
class Row:
    """A sentence of each reply, as HTML, with its place; None where one reply has no counterpart."""

    left: str | None
    right: str | None
    equal: bool
    places: tuple[int | None, int | None]


def aligned(left: Sequence[str], right: Sequence[str]) -> list[Row]:
    """Return the sentences of two replies in rows: equal ones beside each other, with others between them.

    >>> [(row.left, row.right) for row in aligned(["発熱。", "肺炎。"], ["発熱。", "肺癌。", "咳。"])]
    [('発熱。', '発熱。'), ('<mark>肺炎</mark>。', '<mark>肺癌</mark>。'), (None, '<mark>咳。</mark>')]
    """
    rows: list[Row] = []
    stripped = [[worded(sentence) for sentence in side] for side in (left, right)]
    for kind, a, b, c, d in SequenceMatcher(None, stripped[0], stripped[1], autojunk=False).get_opcodes():
        for at, beside in _beside(stripped, range(a, b), range(c, d), equal=kind == "equal"):
            first = stripped[0][at] if at is not None else None
            second = stripped[1][beside] if beside is not None else None
            rows.append(Row(*_marked(first, second), equal=kind == "equal", places=(at, beside)))
    return [row for row in rows if row.left or row.right]


_MARKS = re.compile(r"\*\*|__|`|^\s*(?:#{1,6}\s+|>\s+|[-*_]{3,}\s*$)")
_BULLET = re.compile(r"^\s*[-*+]\s+")


def worded(sentence: str) -> str:
    r"""Return a sentence without the marks of its form, which are no words: two replies differ in what they state.

    >>> worded("* **所見**: 発熱\n"), worded("## まとめ")
    ('・所見: 発熱', 'まとめ')
    """
    return _BULLET.sub("・", _MARKS.sub("", sentence)).strip()


def _beside(
    texts: Sequence[Sequence[str]], left: range, right: range, *, equal: bool
) -> Iterator[tuple[int | None, int | None]]:
    """Yield the places of sentences that belong beside each other: alike ones, and what is between them in order."""
    last = (left.start, right.start)
    alike = [] if equal else _alike(texts, left, right)
    for at, beside in (*alike, (left.stop, right.stop)):
        yield from zip_longest(range(last[0], at), range(last[1], beside))
        if at < left.stop and beside < right.stop:
            yield at, beside
        last = (at + 1, beside + 1)


def _alike(texts: Sequence[Sequence[str]], left: range, right: range) -> list[tuple[int, int]]:
    """Return the pairs of alike sentences, in order on both sides, that share the most letters in all."""
    if len(left) * len(right) > MOST_PAIRS:
        return []
    grams = [[_grams(texts[side][place]) for place in places] for side, places in ((0, left), (1, right))]
    best = [[0.0] * (len(right) + 1) for _ in range(len(left) + 1)]
    shared = [[_share(a, b) for b in grams[1]] for a in grams[0]]
    for at in reversed(range(len(left))):
        for beside in reversed(range(len(right))):
            best[at][beside] = max(
                best[at + 1][beside], best[at][beside + 1], shared[at][beside] + best[at + 1][beside + 1]
            )
    pairs, at, beside = [], 0, 0
    while at < len(left) and beside < len(right):
        if shared[at][beside] and best[at][beside] == shared[at][beside] + best[at + 1][beside + 1]:
            pairs.append((left[at], right[beside]))
            at, beside = at + 1, beside + 1
        elif best[at][beside] == best[at + 1][beside]:
            at += 1
        else:
            beside += 1
    return pairs


def _grams(text: str) -> frozenset[str]:
    return frozenset(text[at : at + 2] for at in range(len(text) - 1)) or frozenset((text,))


def _share(first: frozenset[str], second: frozenset[str]) -> float:
    """Return which share of the letter pairs two sentences have in common (Dice), or 0 where it is small."""
    share = 2 * len(first & second) / (len(first) + len(second))
    return share if share >= BESIDE else 0.0


def _marked(first: str | None, second: str | None) -> tuple[str | None, str | None]:
    """Return two sentences as HTML in which the words that only one of them has are marked."""
    if first == second:
        return (None if first is None else safe(first)), (None if second is None else safe(second))
    words = [_WORD.findall(text or "") for text in (first, second)]
    matcher = SequenceMatcher(None, words[0], words[1], autojunk=False)
    if not first or not second or max(map(len, words)) > MOST_WORDS or matcher.ratio() < LIKE:
        whole = [f"<mark>{safe(text)}</mark>" if text else None for text in (first, second)]
        return whole[0], whole[1]
    parts: tuple[list[str], list[str]] = ([], [])
    for kind, a, b, c, d in matcher.get_opcodes():
        for into, run in zip(parts, (words[0][a:b], words[1][c:d]), strict=True):
            text = safe("".join(run))
            into.append(f"<mark>{text}</mark>" if text and kind != "equal" else text)
    return "".join(parts[0]), "".join(parts[1])


Reply = Record | Cell
"""A recorded reply, or a live one as far as it has come."""


def difference(question: Question, first: Reply, second: Reply) -> str:
    """Return two replies as a table: the line where they part, marked words, and each answer's sentence."""
    texts = [split_thinking(_text(reply))[1] or "" for reply in (first, second)]
    heads = "".join(
        f'<th scope="col">{safe(reply.model)} <small>{both(reply.prompt)}'
        f"{'' if isinstance(reply, Record) else ' · ' + both('live')}</small></th>"
        for reply in (first, second)
    )
    parts = [sentences(text) for text in texts]
    if max(map(len, texts)) > LONGEST_CARD or max(map(len, parts)) > MOST_SENTENCES:
        cells = "".join(f'<td lang="{question.language}">{shortened(text)}</td>' for text in texts)
        note = f'<p class="note">{both("difference_long")}</p>'
        return f'{note}<table class="difference"><thead><tr>{heads}</tr></thead><tbody><tr>{cells}</tr></tbody></table>'
    sources = [
        answer_at(part, record.answer, question, within=FURTHEST)
        for part, record in zip(parts, (first, second), strict=True)
    ]
    rows, parted = "", False
    for row in aligned(*parts):
        if not row.equal and not parted:
            parted = True
            rows += f'<tr class="part"><td colspan="2">{both("difference_parts")}</td></tr>'
        cells = "".join(
            _cell(text, question, read=place is not None and place == source)
            for text, place, source in zip((row.left, row.right), row.places, sources, strict=True)
        )
        rows += f"<tr{' class=same' if row.equal else ''}>{cells}</tr>"
    note = "" if parted else f'<p class="note">{both("difference_none")}</p>'
    return f'{note}<table class="difference"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'


def _cell(text: str | None, question: Question, *, read: bool) -> str:
    if text is None:
        return "<td></td>"
    source = f' <span class="badge">← {both("difference_read")}</span>' if read else ""
    return f'<td lang="{question.language}"{" class=read" if read else ""}>{text}{source}</td>'


def _text(reply: Reply) -> str:
    return reply.completion if isinstance(reply, Record) else reply.text


def difference_fold(key: str, recorded: Sequence[Record], now: LiveAnswers | None = None) -> str:
    """Return the fold in which a reader chooses two replies, recorded or live; its table is fetched when it opens."""
    live = list(now.cells.values()) if now else []
    # Stable: the models keep their order.
    replies: list[Reply] = sorted([*recorded, *live], key=lambda reply: reply.prompt != "explain")
    if len(replies) < 2:
        return ""
    lists = "".join(
        f'<select data-reply="{side}" aria-label="{side.upper()}">'
        + "".join(_option(reply, now, selected=at == place) for place, reply in enumerate(replies))
        + "</select>"
        for at, side in enumerate("ab")
    )
    name = now.name if now else ""
    return (
        f'<details class="differ" data-key="{quote(key, safe="/")}" data-live="{name}">'
        f"<summary>{both('difference_title')}</summary>"
        f'<div class="tools">{lists}</div><div class="differ-table" role="status"></div></details>'
    )


def _option(reply: Reply, now: LiveAnswers | None, *, selected: bool) -> str:
    """Return a reply as a choice of a list, which holds text alone: the script shows it in the reader's language."""
    column = (reply.model, reply.prompt)
    live = f" {clock(now.asked_at(column))}" if now is not None and isinstance(reply, Cell) else ""
    labels = {}
    for language in LANGUAGES:
        kind = word(reply.prompt, language) + (f", {word('live', language)}{live}" if live else "")
        labels[language] = safe(f"{reply.model} ({kind})")
    value = f"{'live ' if live else ''}{reply.prompt} {reply.model}"
    shown = "".join(f' data-{language}="{label}"' for language, label in labels.items())
    return f'<option value="{safe(value)}"{" selected" if selected else ""}{shown}>{labels["ja"]}</option>'
