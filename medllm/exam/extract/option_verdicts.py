"""An explanation's verdict on each choice, and whether the letters given as the answer agree with the verdicts."""

import re
from collections.abc import Iterator

from medllm.exam.extract.completion import CIRCLED
from medllm.exam.question import LETTERS

_LABEL = re.compile(
    rf"(?:^|[\n。])[\s#>*・•|-]*(?P<mark>[×✗✘❌✕○〇◯✓✔✅☑][\s|]*)?(?:選択肢|[Oo]ption)?[\s(\[]*"
    rf"(?P<letters>[a-hA-H{CIRCLED}](?:\s*[・、,〜~/&と]\s*[a-hA-H{CIRCLED}])*)(?![A-Za-z0-9])[\s)\]*]*[:.、はもが(\s*→—–|-]"
)
_CLOSING = re.compile(
    r"\n\s*\n|\n\s*(?:#|---)|(?:答え|解答|回答|結論|まとめ|したがって|よって|以上より|Answer|【)", re.I
)
_AGAINST = (
    r"誤り|誤(?=[。\s]|$)|不適切|不適当|不正解|正しくな\w*|正しくありません|適切で(?:は)?な\w*"
    r"|適切ではありません|該当しな\w*"
    r"|(?:is |are )?(?:in|not )correct|not appropriate|inappropriate|wrong|false"
)
_FOR = r"正しい|正解|正(?=[。\s]|$)|適切|妥当|該当する|(?:is |are )?correct|(?:is |are )?appropriate|true"
_WORDS = rf"(?:(?P<against>{_AGAINST})|(?P<favour>{_FOR}))"
_ENDED = r"(?!な)"
"""「適切な治療法」 is no verdict, 「適切である」 is one."""
_MARK = re.compile(r"(?P<against>[×✗✘❌✕])|(?P<favour>[○〇◯✓✔✅☑])")
_FIRST = re.compile(rf"[\s:.、は*)\]→—–|-]*(?:最も)?{_WORDS}{_ENDED}", re.I)
_ARROW = re.compile(rf"(?:→|⇒|:)[\s*]*(?:最も)?{_WORDS}{_ENDED}", re.I)
_LAST = re.compile(rf"{_WORDS}[\s*]*(?:です|である|だ|と(?:なる|いえる|考えられる)|な\w{{1,8}})?[\s*。.!)|]*$", re.I)


def verdicts(text: str) -> dict[str, bool]:
    r"""Return each choice that a reply's readable part itself plainly calls right (True) or wrong (False).

    >>> verdicts("a・b 正しい。上記の通り。c~e 誤り。\n答え: a,b")
    {'a': True, 'b': True, 'c': False, 'd': False, 'e': False}
    """
    found: dict[str, bool] = {}
    for letters, segment in _segments(text):
        verdict = _verdict(segment)
        if verdict is not None:
            found.update(dict.fromkeys(letters, verdict))
    return dict(sorted(found.items()))


def _verdict(segment: str) -> bool | None:
    """Return the verdict of a mark, of the first or last words, or after an arrow; other words are no verdict."""
    for place in (_MARK.search(segment), _FIRST.match(segment), _ARROW.search(segment), _LAST.search(segment)):
        if place is not None:
            return place["favour"] is not None
    return None


def agrees(answer: str, verdicts: dict[str, bool]) -> bool | None:
    """Return whether the letters given are those the explanation sets apart; None if its verdicts do not suffice.

    Exams ask for the right choices and for the wrong ones, so it is enough that all letters given were judged the
    same way and no other choice was judged that way.
    """
    given = answer.split(",")
    judged = [verdicts[letter] for letter in given if letter in verdicts]
    others = [verdict for letter, verdict in verdicts.items() if letter not in given]
    if len(judged) < len(given) or not others:
        return None
    return len(set(judged)) == 1 and judged[0] not in others


def _segments(text: str) -> Iterator[tuple[str, str]]:
    """Yield the letters of each label at the head of a line or sentence, and the text up to the next label."""
    labels = list(_LABEL.finditer(text))
    for place, label in enumerate(labels):
        end = labels[place + 1].start() + 1 if place + 1 < len(labels) else len(text)
        segment = text[label.end("letters") : end]
        if label["mark"]:
            segment = f" {label['mark'].strip()} {segment}"
        closing = _CLOSING.search(segment)
        yield _spelt_out(label["letters"]), (segment[: closing.start()] if closing else segment).strip()


def _spelt_out(letters: str) -> str:
    """Return the single letters of a label such as "a~c" or "❷".

    >>> _spelt_out("c~e")
    'cde'
    """
    plain = "".join(LETTERS[CIRCLED.index(one)] if one in CIRCLED else one.lower() for one in letters)
    ends = re.fullmatch(r"([a-h])\s*[〜~]\s*([a-h])", plain)
    if ends:
        return LETTERS[LETTERS.index(ends[1]) : LETTERS.index(ends[2]) + 1]
    return "".join(one for one in plain if one in LETTERS)
