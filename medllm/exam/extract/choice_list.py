"""Lists of letters (or one number) at a given place in a text, and an explanation's verdict on each choice."""

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
_VERDICT_ENDED = r"(?!な)"
"""「適切な治療法」 is no verdict, 「適切である」 is one."""
_MARK = re.compile(r"(?P<against>[×✗✘❌✕])|(?P<favour>[○〇◯✓✔✅☑])")
_FIRST = re.compile(rf"[\s:.、は*)\]→—–|-]*(?:最も)?{_WORDS}{_VERDICT_ENDED}", re.I)
_ARROW = re.compile(rf"(?:→|⇒|:|\s[-–—]\s)[\s*]*(?:最も)?{_WORDS}{_VERDICT_ENDED}", re.I)
_CELL = re.compile(rf"\|[\s*]*(?:{_WORDS}|(?P<wrong>誤り?|不正解)|(?P<right>正))[\s*]*\|", re.I)
"""A verdict that fills a cell of a table's row."""
_LAST = re.compile(rf"{_WORDS}[\s*]*(?:です|である|だ|と(?:なる|いえる|考えられる)|な\w{{1,8}})?[\s*。.!)|]*$", re.I)


def verdicts(text: str) -> dict[str, bool]:
    r"""Return each choice that a reply's readable part itself plainly calls right (True) or wrong (False).

    >>> verdicts("a・b 正しい。上記の通り。c~e 誤り。\n答え: a,b")
    {'a': True, 'b': True, 'c': False, 'd': False, 'e': False}
    """
    by_letter: dict[str, bool] = {}
    for letters, segment in _segments(text):
        verdict = _verdict(segment)
        if verdict is not None:
            by_letter.update(dict.fromkeys(letters, verdict))
    return dict(sorted(by_letter.items()))


def _verdict(segment: str) -> bool | None:
    """Return the verdict of a mark, of the first or last words, or after an arrow; other words are no verdict."""
    for place in (_MARK.search(segment), _FIRST.match(segment), _ARROW.search(segment)):
        if place is not None:
            return place["favour"] is not None
    if cell := _CELL.search(segment):
        return bool(cell["favour"] or cell["right"])
    last = _LAST.search(segment)
    return None if last is None else last["favour"] is not None


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
    plain = "".join(LETTERS[CIRCLED.index(letter)] if letter in CIRCLED else letter.lower() for letter in letters)
    ends = re.fullmatch(r"([a-h])\s*[〜~]\s*([a-h])", plain)
    if ends:
        return LETTERS[LETTERS.index(ends[1]) : LETTERS.index(ends[2]) + 1]
    return "".join(char for char in plain if char in LETTERS)


_OPEN = r"[(\[{<〈《【]{0,3}[ \t]{0,4}(?:(?:選択肢|肢|[Oo]ptions?|[Cc]hoices?)[ \t]{0,4})?[(\[{<〈《【]{0,3}[ \t]{0,4}"
_CLOSE = r"[)\]}>〉》】]{0,4}"
_LETTER = re.compile(rf"{_OPEN}(?P<letter>[a-hA-H]|[{CIRCLED}])(?P<close>{_CLOSE})")
_RUN = re.compile(
    rf"{_OPEN}(?P<run>[a-hA-H]{{2,5}}){_CLOSE}(?![A-Za-z0-9])(?=[ \t]*(?:$|[\n。.,、)\]}}(]|です|である|だ|が|と))"
)
_DIGIT = re.compile(
    rf"{_OPEN}(?P<digit>[1-8])(?:番目?(?:の選択肢)?)?{_CLOSE}(?![\d%])(?!\.\d)"
    r"(?=\s*(?:$|[\n。.,、・/:)\]}(]|です|である|だ|が|と|および|及び|and|の[1-5二三四五]つ|の二つ))"
)
_KANA = re.compile(
    rf"{_OPEN}(?P<kana>[アイウエオカキク])(?P<close>{_CLOSE})(?![ァ-ヴー一-鿿々])(?=$|[\s。.,、・/:)\]と]|です"
    rf"|である|だ|及び|および)"
)
_SEPARATOR = re.compile(
    r"[ \t]*(?:\([^()\n]{1,60}\)[ \t]*)?"
    r"(?:[,、・/&;+]|と|および|及び|ならびに|並びに|かつ|and\b)[ \t,、]*(?:and\b[ \t]*)?|[ \t]+"
)
_NOT_AFTER = re.compile(
    r"[A-Za-z0-9_²]|[-‐–'’]\w|\.[a-z]\.|/(?=[A-Za-z0-9])(?![a-hA-H](?![A-Za-z0-9]))|(?![及並])[一-鿿ァ-ヴー々]"
)
_ARTICLE = re.compile(r"[ \t]+(?!and\b|or\b|but\b|nor\b|because\b|since\b)(?:[a-z]{2,}|[A-Z][a-z]+[ \t]+[a-z])")
_INSTEAD = re.compile(
    r"\s*[、,]?\s*(?:では(?:なく|ない|ありません)|でなく|じゃな(?:く|い))(?:て|です|のです)?[、。,]?\s*"
    r"(?:(?:正しくは|正解は|答えは|むしろ|実は|実際は|本問は)[、,]?\s*)?"
)
_NOR = re.compile(
    r"\s*[a-hA-H](?:\s*でも[、\s]*[a-hA-H]){0,6}\s*でも(?:な(?:く|い)|ありません)(?:て|です)?[、。,]?\s*"
    r"(?:(?:正しくは|正解は|答えは)[、,]?\s*)?"
)
"""「a でも c でもなく」, before the letters that are right."""
_CHANGED = re.compile(r"\s*(?:\((?:誤り?|×|訂正前|間違い|wrong)\))?\s*(?:→|⇒)\s*(?=[a-hA-H](?![A-Za-z0-9]))", re.I)
"""The arrow of 「a → b に訂正」 and 「a(誤り)→ b」."""
_NOT_BUT = re.compile(r"\s*not\s+", re.I)
_BUT = re.compile(r"\s*[,.;]?\s*(?:but(?:\s+rather)?|rather|instead|it\s+is|it's)\s+", re.I)
_DENIED = re.compile(
    r"\s*(?:では(?:な|あり|正)|じゃな|以外|を除|または|もしくは|あるいは|か[、,]?\s*[a-hA-H](?![A-Za-z])"
    r"|か(?=[?。\s、]|$|と|も|どうか)"
    r"|の?(?:どちら|いずれ)|の(?:中|うち)|or\b|〜|~|から[a-h]|は?(?:どれ|何)"
    r"|(?:です|である|だ|だった|と)?(?:と)?(?:すると|したら|すれば)|と(?:なる|する|した|言える|いえる|なった"
    r"|される)(?:のは|には|場合|なら)"
    r"|に(?:なる|する|なった|した)(?:のは|には|場合|なら)|の?場合|なら(?!な)|だった(?:ら|か)|であれば|かもしれ"
    r"|(?:だろう|でしょう)か"
    r"|とは(?:限|言|い|考|な|思)|に(?:は)?な(?:らな|りませ|りえ|り得)|に(?:は)?(?:見え|みえ|思え)|は(?:誤|間違"
    r"|不|違|正しくな|適切でな|適切ではな)"
    r"|が(?:誤|間違|不)|と(?:思われた|思った|思いがち|考えがち|考えたくな|答えたくな|答えがち|間違え|迷)"
    r"|の(?:可能性(?:も|が)|よう)|\?"
    r"|,?\s*(?:if|unless|when\s+asked|only\s+if|were\s)\b|(?:is|are|was|were)(?:\s+not|n't|\s+wrong|\s+incorrect)\b"
    r"|(?:seems?|might|may|could|would)\b)"
)
_KANA_ORDER = "アイウエオカキク"
_ENDED = re.compile(r"[\s。.．)\]]*(?:です|である|だ)?[\s。.]*")
_COMMENT = re.compile(r"\s*\([^()\n]{1,120}\)[\s。.]*")
_LABELLED = re.compile(r"[ \t]*[:.)、( \t][ \t]*(?P<words>[^\n。]{1,80})[\s。.]*")
_SPREAD = re.compile(r"(?:^|(?<=[\n、,と]))[ \t・-]*[(\[]?(?P<letter>[a-hA-H])[)\]]?[ \t]*[:.)( 　]")
_CLOSED = re.compile(
    r"\s*(?:$|[。\n.!、,)(:]|です|である|でした|だ(?![がけ])|が(?:最も)?(?:正解|正しい|正答|適切|答え)"
    r"|に(?:なります|なる|訂正|変更|修正)"
    r"|となり|となる|と(?:考え|思い|思う|します|判断)|を選|でしょう|is\s+(?:the\s+)?(?:correct|right|best)"
    r"|instead\b|because\b|since\b)"
)
_WORD = re.compile(r"[A-Za-z0-9]")


def letters_at(text: str, start: int, allowed: str, *, lenient: bool) -> tuple[frozenset[str], int] | None:
    """Return the letters of the list that starts at `start` and the list's end, or None if no list starts there.

    `lenient` also takes letters without separators ("bd"), digits for choices ("2" is b) and kana ("イ" is b). A list
    that is retracted ("a ではなく b", "not A but B") gives the letters that replace it; one that is in doubt or
    under a condition ("a となるのは", "a?") gives none.
    """
    if (denied := _NOT_BUT.match(text, start)) is not None:
        letters = _list_at(text, denied.end(), allowed, lenient=False)
        instead = _BUT.match(text, letters[1]) if letters else None
        return closed_list(text, instead.end(), allowed) if instead else None
    if (denied := _NOR.match(text, start)) is not None:
        return closed_list(text, denied.end(), allowed)
    letters = _list_at(text, start, allowed, lenient=lenient)
    if letters is None or letters[0] == frozenset(allowed):
        return None
    other = _INSTEAD.match(text, letters[1]) or _CHANGED.match(text, letters[1])
    if other is not None:
        return closed_list(text, other.end(), allowed)
    return None if _DENIED.match(text, letters[1]) else letters


def closed_list(text: str, start: int, allowed: str) -> tuple[frozenset[str], int] | None:
    """Return a list whose clause ends directly after it: "b です", "B.", "b に訂正します"."""
    letters = _list_at(text, start, allowed, lenient=True)
    if letters is None or letters[0] == frozenset(allowed) or _DENIED.match(text, letters[1]):
        return None
    return letters if _CLOSED.match(text, letters[1]) else None


def bare_list(text: str, allowed: str) -> tuple[frozenset[str], str] | None:
    """Return the letters of a text that is only a list, and one choice's own words where they follow its letter.

    >>> bare_list("b: 硫化水素中毒", "abcde")
    (frozenset({'b'}), '硫化水素中毒')
    """
    listed = _list_at(text, 0, allowed, lenient=True)
    if listed is None or listed[0] == frozenset(allowed):
        return None
    letters, end = listed
    if _ENDED.fullmatch(text, end) or (len(letters) > 1 and _COMMENT.fullmatch(text, end)):
        return letters, ""
    labelled = _LABELLED.fullmatch(text, end) if len(letters) == 1 and not _was_digit(text, end) else None
    return (letters, labelled["words"]) if labelled else None


def spread_list(text: str, start: int, allowed: str, wanted: int) -> frozenset[str] | None:
    """Return the letters of a list where each letter has its choice's words: "b: 硫化水素、d: 一酸化炭素"."""
    part = text[start : start + 400].split("\n\n", 1)[0]
    letters = {label["letter"].lower() for label in _SPREAD.finditer(part)}
    return frozenset(letters) if len(letters) == wanted and letters <= set(allowed) else None


def list_before(text: str, allowed: str) -> frozenset[str] | None:
    """Return the letters of the list that ends where the text ends (「…よって b と d」), or None.

    >>> sorted(list_before("よって b と d", "abcde"))
    ['b', 'd']
    """
    for start in range(len(text)):
        if (start == 0 or not _WORD.match(text[start - 1])) and (
            listed := _list_at(text, start, allowed, lenient=False)
        ):
            letters, end = listed
            if not text[end:].strip(" \t()"):
                return letters
    return None


def _list_at(text: str, start: int, allowed: str, *, lenient: bool) -> tuple[frozenset[str], int] | None:
    """Return letters and the place after them."""
    if lenient and (run := _RUN.match(text, start)):
        letters = run["run"].lower()
        one_case = run["run"] in (letters, letters.upper())
        if one_case and list(letters) == sorted(set(letters)) and set(letters) <= set(allowed):
            return frozenset(letters), run.end()
    collected: list[str] = []
    end = start
    item = _item_at(text, start, allowed, lenient=lenient)
    while item is not None:
        letter, end = item
        collected.append(letter)
        gap = _SEPARATOR.match(text, end)
        item = _item_at(text, gap.end(), allowed, lenient=lenient and _was_digit(text, end)) if gap else None
    return (frozenset(collected), end) if collected else None


def _was_digit(text: str, end: int) -> bool:
    """Return whether the item that ends at `end` is a digit or kana, so that another of that kind may follow it."""
    last = text[max(0, end - 8) : end].rstrip(")]}>〉》】番")[-1:]
    return last.isdigit() or last in tuple(_KANA_ORDER)


def _item_at(text: str, start: int, allowed: str, *, lenient: bool) -> tuple[str, int] | None:
    """Return one letter and the place after it."""
    if match := _LETTER.match(text, start):
        raw = match["letter"]
        letter = LETTERS[CIRCLED.index(raw)] if raw in CIRCLED else raw.lower()
        if letter not in allowed or (not match["close"] and _NOT_AFTER.match(text, match.end())):
            return None
        article = letter == "a" and not match["close"] and _ARTICLE.match(text, match.end())
        return None if article else (letter, match.end())
    if lenient and (match := _DIGIT.match(text, start)):
        letter = LETTERS[int(match["digit"]) - 1]
        return (letter, match.end()) if letter in allowed else None
    if lenient and (match := _KANA.match(text, start)):
        letter = LETTERS[_KANA_ORDER.index(match["kana"])]
        return (letter, match.end()) if letter in allowed else None
    return None
