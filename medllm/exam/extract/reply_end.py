"""The end of a reply: stop marks of every family, role and system text, an invented next question or its choices."""

import re
from collections.abc import Sequence

STOP = re.compile(
    r"<\|(?:\w{1,20}[:_])?(?:im_end|im_stop|endoftext|end|end_of_text|end▁of▁sentence|eot|eot_id|eom_id|eos|return|call"
    r"|end_of_turn_token|end_of_role|endofturn|endofmessage|end_of_solution|end_response|end_of_box|role_end"
    r"|stop|pad)\|>"
    r"|\[\|endofturn\|\]|\[(?:EOS|EOT)\]|<(?:/s|end_of_turn|eos|eot|turn\||pad|EOD|EOD\|LLM-jp|\[EOS\]|\[end\]"
    r"|seed:eos)>",
    re.I,
)
"""The marks that end a reply, after NFKC."""

_ROLE_MARK = re.compile(
    r"<\|(?:im_start|start_header_id|start|turn|start_of_role|role_start)\|?>|<\|(?:im_)?(?:user|assistant"
    r"|system|human)\|>"
    r"|\[/?INST\]|<<SYS>>|<start_of_turn>|<\|turn>|\[\|(?:user|assistant|system)\|\]|<extra_id_1>|<\|plamo:op\|>",
    re.I,
)
_TURN = re.compile(
    r"\n[ \t]*(?:#{1,4}[ \t]*)?(?:\*\*)?[ \t]*"
    r"(?:【?(?:次の)?問題】?[ \t]*\d{0,3}[ \t]*[::]|【(?:次の)?問題[ \t]*\d{0,3}】|\[問題[ \t]*\d{0,3}\]"
    r"|問[ \t]*\d{1,3}[ \t]*[::.)]|(?:Next[ \t]question|Question|Q)[ \t]*\d{0,3}[ \t]*[::]"
    r"|(?:User|Human|Assistant|System|ユーザー?|アシスタント|システム)[ \t]*[::]"
    r"|(?:Instructions?|Input|指示|入力)(?:\*\*)?[ \t]*[::]"
    r"|必ず[ \t]*[a-h](?:[ \t]*,[ \t]*[a-h])+の中から|回答を指定された形式で|以下は、?タスクを説明する指示"
    r"|Below is an instruction)",
    re.I,
)
_HEADED = re.compile(r"\n[ \t]*#{1,4}[ \t]*(?:指示|入力|Instructions?|Input|System|User|Human)[ \t]*(?=\n)", re.I)
_ROLE_LINE = re.compile(r"(?:\n|(?<=[。.!?]))[^\n\x00-\x7f]{0,12}(?:user|assistant|system|human)[ \t]*(?=\n)", re.I)
_LABELLED = re.compile(
    r"\n[ \t]*[([]?[aA][:.)\]、 \t][ \t]*(?P<a>[^\n]{0,120}+)[^\n]*+\n+"
    r"[ \t]*[([]?[bB][:.)\]、 \t][ \t]*(?P<b>[^\n]{0,120}+)[^\n]*+\n+"
    r"[ \t]*[([]?[cC][:.)\]、 \t][ \t]*(?P<c>[^\n]{0,120}+)"
)
_VERDICT = re.compile(
    r"正し|誤|適切|正解|該当|妥当|[×✗✘❌○〇◯✓✔✅]|可能性|考え|ため|である|です|correct|wrong|true|false|likely|because",
    re.I,
)
_BARE_FIRST = re.compile(r"[\s(\[]*[a-hA-H](?:[\s,、・と)\]]*[a-hA-H])*[\s)\].。]*")
_ASKS = re.compile(r"どれか|選べ|選びなさい|何か[。?]|いくつか|\?|求めよ|歳の(?:男|女)")
_LONGEST_STEM = 1500


def cuts(text: str, asked: str | None) -> list[int]:
    """Return the places where text begins that is not part of the reply, in no order.

    `asked` is the text of the question, which a reply may repeat.
    """
    known = _letters(asked) if asked is not None else None
    turn = next(
        (turn.start() for turn in _TURN.finditer(text) if not _repeats(text[turn.end() : turn.end() + 200], known)),
        None,
    )
    found = [place.start() for place in (STOP.search(text), _ROLE_MARK.search(text)) if place]
    found += [place.start() for place in (_HEADED.search(text), _ROLE_LINE.search(text)) if place]
    found += [place for place in (turn, _choices_below(text)) if place is not None]
    return found


def other_choices(text: str, choices: Sequence[str]) -> int | None:
    """Return the beginning of another question's choices, or of the question above them; None if there are none.

    Lines a, b, c count only if none has a verdict or this question's own words, as an explanation's lines would.
    """
    own = [words for choice in choices if (words := _letters(choice))]
    for block in _LABELLED.finditer(text):
        lines = [_letters(block[name]) for name in "abc"]
        blocks = [block[name] for name in "abc"]
        if any(_VERDICT.search(words) for words in blocks) or not all(lines):
            continue
        if any(one in line or line in one for line in lines for one in own):
            continue
        return _stem_above(text, block.start())
    return None


def _stem_above(text: str, place: int) -> int:
    """Return the beginning of the question above its choices, or else of the choices."""
    line = text.rfind("\n", max(0, place - _LONGEST_STEM), place)
    return line if line > 0 and _ASKS.search(text, line, place) else place


def _letters(words: str) -> str:
    return re.sub(r"\W", "", words).casefold()


def _repeats(after: str, known: str | None) -> bool:
    """Return whether the line after "Question:" is the question that was asked, rather than an invented one."""
    line = _letters(after.lstrip().split("\n", 1)[0])[:40]
    grams = {line[at : at + 3] for at in range(len(line) - 2)}
    if known is None or not grams:
        return False
    return sum(gram in known for gram in grams) > 0.5 * len(grams)


def _choices_below(text: str) -> int | None:
    """Return the end of the first line if that line is an answer and a new list of choices follows; else None."""
    first_line = text.split("\n", 1)[0]
    if len(first_line) > 60 or not first_line.strip() or not _BARE_FIRST.fullmatch(first_line):
        return None
    block = _LABELLED.search(text, len(first_line))
    return len(first_line) if block else None
