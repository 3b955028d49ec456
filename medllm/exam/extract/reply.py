"""The reply proper: without a model's thinking, without markup, and without what runs on after its end."""

import re
from collections.abc import Sequence

_BOX = re.compile(r"\\(?:boxed|fbox|framebox)\s{0,4}\{((?:[^{}]|\{[^{}]*\})*)\}")
_STRUCK = re.compile(
    r"~~[^~\n]{1,200}~~|<(?:del|s|strike)>[^<>\n]{1,200}</(?:del|s|strike)>|\\(?:sout|cancel|st"
    r"|xcancel)\{[^{}\n]{1,200}\}"
)
_WRAPPED = re.compile(
    r"\\(?:text[a-z]{0,7}|math[a-z]{2,6}|bf|rm|underline|bm|boldsymbol|mbox|hbox|operatorname|large"
    r"|Large)\s{0,2}\{([^{}]*)\}"
)
_FRACTION = re.compile(r"\\[dt]?frac\s{0,2}\{([^{}]{1,40})\}\s{0,2}\{([^{}]{1,40})\}")
_SIGNS = {"times": "×", "cdot": "×", "div": "÷", "approx": "≈", "simeq": "≈", "to": "→", "rightarrow": "→",
          "Rightarrow": "→", "sim": "~", "pm": "±", "le": "≦", "ge": "≧", "therefore": "∴"}  # fmt: skip
_SIGN = re.compile(rf"\\({'|'.join(sorted(_SIGNS, key=len, reverse=True))})(?![a-zA-Z])")
_LATEX = re.compile(
    r"\\(?:[()\[\],;:! ]|quad\b|qquad\b|left\b|right\b|bf\b|rm\b|textbf\b|displaystyle\b)|(?<=\\)[{}]|\\(?=[%${}_&#])"
)
_TAG_NAME = (
    r"(?:final[_ -]?)?(?:answer|ans)|final|solution|response|output|conclusion|choice|result"
    r"|最終回答|回答|解答|答え|答|正解|結論"
)
_TAG = re.compile(
    rf"<\|?(?P<end>/|end_of_)?(?:{_TAG_NAME}|begin_of_box|box)(?:\s[^<>\n]{{0,60}})?\|?>\s*"
    r"|\[(?P<shut>/)?(?:FINAL_?)?ANSWER\]\s*|\[(?P<closed>/)(?:最終)?(?:回答|解答|答え|答|正解)\]\s*",
    re.I,
)
_BREAK = re.compile(r"</?(?:br|p|div|li|ul|ol|h[1-6]|tr|table|tbody|thead)\b[^<>\n]{0,80}>", re.I)
_STYLE = re.compile(
    r"</?(?:strong|em|i|u|b|span|mark|font|center|code|pre|sup|sub|td|th|small|big)\b[^<>\n]{0,80}>", re.I
)
_CONTRACTED = re.compile(r"\b(is|are|was)n['’]t\b")
_ANSWERS = re.compile(r"\banswer['’]s\b", re.I)
_FENCE = re.compile(r"^[ \t]*(?:`{3,}|~{3,})[ \t]*\w{0,12}[ \t]*$", re.M)
_LINE_HEAD = re.compile(r"^[ \t]*(?:#{1,6}[ \t]+|>+[ \t]?)+", re.M)
_UNDERSCORE = re.compile(r"(?<![A-Za-z0-9_\\])_{1,3}(?=[^\s_])|(?<=[^\s_])_{1,3}(?![A-Za-z0-9_])")
_QUOTE = re.compile(r"(?<![A-Za-z])['‘’]|['‘’](?![A-Za-z])")
DECORATION = re.compile(r'[*`$「」『』“”"]+')
"""Marks of emphasis and quotes around an answer, which have no meaning."""


def plain(text: str) -> str:
    r"""Remove the markup of a text; a box becomes "boxed: ", an answer tag "tagged: ", each on its own line.

    >>> plain(r"So $\boxed{\text{B}}$").split()
    ['So', 'boxed:', 'B']
    >>> plain("__Answer__: ~~A~~ B")
    'Answer:  B'
    """
    if "'" in text or "’" in text or "‘" in text:
        text = _QUOTE.sub("", _ANSWERS.sub("answer is", _CONTRACTED.sub(r"\1 not", text)))
    if "\\" in text:
        text = _without_latex(text)
    if "~~" in text or "<" in text:
        text = _STRUCK.sub("", text)
    if "<" in text or "[" in text:
        text = _TAG.sub(lambda tag: "\n" if tag["end"] or tag["shut"] or tag["closed"] else "\ntagged: ", text)
    if "</" in text or "<br" in text:
        text = _STYLE.sub("", _BREAK.sub("\n", text))
    if "```" in text or "~~~" in text:
        text = _FENCE.sub("", text)
    if "#" in text or ">" in text:
        text = _LINE_HEAD.sub("", text)
    if "_" in text:
        text = _UNDERSCORE.sub("", text)
    return DECORATION.sub("", text).strip()


def _without_latex(text: str) -> str:
    text = _STRUCK.sub("", text)
    for _ in range(3):
        text = _WRAPPED.sub(r"\1", text)
    text = _FRACTION.sub(r"\1/\2", text)
    text = _SIGN.sub(lambda sign: _SIGNS[sign[1]], text)
    return _BOX.sub(lambda box: f"\nboxed: {_LATEX.sub('', box[1])}\n", _LATEX.sub("", text))


_NAME = (
    r"(?:\w{1,12}[:_])?(?:(?:ant)?think(?:ing)?(?:_fast(?:er)?)?|thoughts?|reason(?:ing)?|reflection|scratch_?pad"
    r"|(?:inner|internal)?_?monologue|plan(?:ning)?|思考|推論|考察|分析|chain_of_thought|cot|analysis|deliberation)"
    r"(?:[:_-]\w{1,12})?"
)
_SHORT_NAME = r"(?:think(?:ing)?|thoughts?|reasoning|思考)"
_OPEN = (
    rf"<{_NAME}(?:\s[^<>\n]{{0,60}})?>|\[{_SHORT_NAME}\]|◁{_NAME}▷"
    rf"|<\|(?:begin_of_|begin_|start_of_|start_)?{_NAME}(?:_start|_begin)?\|>"
    r"|<unused94>(?:thought\b)?|<\|channel>thought\b|\[unused16\]|<\|inner_prefix\|>"
    r'|<details\s+type="?reasoning"?[^<>\n]{0,80}>'
)
_CLOSE = (
    rf"</{_NAME}>|<{_NAME}\s?/>|\[/{_SHORT_NAME}\]|◁/{_NAME}▷|<\|(?:end_of_|end_|/){_NAME}\|>|<\|{_NAME}_end\|>"
    r"|<unused95>|<channel\|>|\[unused17\]|<\|inner_suffix\|>|<\|begin_of_solution\|>|<\|start_response\|>"
    r"|<\|content\|>"
)
_MARK = re.compile(rf"(?P<close>{_CLOSE})|(?P<open>{_OPEN})", re.I)
_BRACKET = re.compile(r"[<◁]|\[(?=/?[TtRru思])")
_DETAILS_END = re.compile(r"</details>", re.I)
_ESCAPED = re.compile(rf"&lt;(/?{_NAME})&gt;", re.I)
_CHANNEL = re.compile(
    r"<\|channel\|>\s{0,4}(?P<name>\w{1,20})[^<\n]{0,80}(?:<\|constrain\|>\s{0,4}\w{1,20}\s{0,4})?<\|message\|>", re.I
)
_BETWEEN = re.compile(
    rf"(?:(?:{_CHANNEL.pattern}|<\|(?:start|begin)\|>\s{{0,4}}assistant\b|<\|(?:start|end|message)\|>)\s*+)+", re.I
)
"""The marks between the messages of a reply in channels."""
_SPOKEN_FINAL = re.compile(r"assistant\s?final(?=[^a-z]|[a-h](?![a-z]))|assistant(?:<\|channel\|>)?final(?=\S)")
_SPOKEN_OPEN = re.compile(
    r"\s*(?:assistant)?(?:analysis|commentary)(?=[^\sa-z:,.;()/\-'’]|we\b|the\b|let\b|i\b|user\b)"
)
_SPOKEN_REPLY = re.compile(r"\s*final(?=[A-Z\u3000-\u9fff【*#{\[\\(]|[a-h][\s.,]*$)")
_HEADS = (
    (
        re.compile(r"\s*(?:#{1,4}[ \t]*|\*\*)Think(?:ing)?(?:[ \t]process)?(?:\*\*)?[ \t:]*\n", re.I),
        re.compile(r"\n[ \t]*(?:#{1,4}[ \t]*|\*\*)Final[ \t](?:Response|Answer)\b(?:\*\*)?[ \t:]*", re.I),
    ),
    (
        re.compile(r"\s*Here(?:'s| is) my (?:thought|thinking) process:", re.I),
        re.compile(r"Here(?:'s| is) my response:", re.I),
    ),
    (re.compile(r"\s*Thinking\.\.\.[ \t]*\n", re.I), re.compile(r"\.\.\.[ \t]*done thinking\.?", re.I)),
)
"""Beginnings and ends of thinking that words announce: HuatuoGPT, Granite, Ollama's terminal."""
_ENDED_BEFORE = re.compile(r"<\|(?:im_end|endoftext|eot_id|end_of_text|return)\|>|</s>|<end_of_turn>|<eos>|<turn\|>")

_ALOUD = re.compile(
    r"\b(?:wait|hmm+|let me|let's|we need to|i need to|okay|alternatively|i think|maybe|perhaps|not sure"
    r"|but the question"
    r"|looking back|double.check|recall|should be|could be|so answer|let us)\b"
    r"|待て|うーん|えっと|さて|ちょっと待|もう一度(?:考え|確認)|確認(?:してみ|しよう)|考えてみ|かもしれない"
    r"|だろうか|のはず|かな。",
    re.I,
)
_ALOUD_ENOUGH = 3


def without_thinking(text: str, *, thinks: bool = False) -> str | None:
    """Return the visible part of a completion whose characters are in their NFKC form; None if it ends in thinking.

    `thinks`: the prompt's template has opened the thinking, so a completion that never closes it has no visible part.

    >>> without_thinking("<think>a?</think>b")
    'b'
    >>> without_thinking("[THINK]Answer: a?") is None
    True
    """
    return _split(text, thinks=thinks)[1]


def split_thinking(text: str, *, thinks: bool = False) -> tuple[str, str | None]:
    """Return what a completion thinks, without marks and blanks around it, and its visible part as `without_thinking`.

    >>> split_thinking("<think>a?</think>b"), split_thinking("b"), split_thinking("a?", thinks=True)
    (('a?', 'b'), ('', 'b'), ('a?', None))
    """
    thought, visible = _split(text, thinks=thinks)
    return "\n".join(part for piece in thought if (part := _BETWEEN.sub("\n", piece).strip())), visible


Split = tuple[list[str], str | None]
"""The pieces of a completion's thinking, and its visible part; None if it ends in thinking."""


def _split(text: str, *, thinks: bool) -> Split:
    if "&lt;" in text:
        text = _ESCAPED.sub(r"<\1>", text)
    if "<|channel|>" in text:
        return _final_channel(text)
    for shape in (_spoken_channels, _announced):
        if split := shape(text):
            return split
    if _BRACKET.search(text):
        return _outside_marks(text, thinks=thinks)
    return ([text], None) if thinks else ([], text)


def _final_channel(text: str) -> Split:
    """Return the first final message of a reply in channels (harmony)."""
    for message in _CHANNEL.finditer(text):
        if message["name"].lower() == "final":
            return [text[: message.start()]], text[message.end() :]
    return [text], None


def _spoken_channels(text: str) -> Split | None:
    """Read channels whose special tokens were dropped in decoding: "analysis...assistantfinal..."; None for others."""
    opening = _SPOKEN_OPEN.match(text)
    begin = opening.end() if opening else 0
    if "assistant" in text and (final := _SPOKEN_FINAL.search(text)):
        return [text[begin : final.start()]], text[final.end() :]
    if opening:
        return [text[begin:]], None
    if reply := _SPOKEN_REPLY.match(text):
        return [], text[reply.end() :]
    return None


def _announced(text: str) -> Split | None:
    """Remove thinking that words announce rather than marks; None where no words do."""
    for begins, ends in _HEADS:
        if head := begins.match(text):
            end = ends.search(text, head.end() - 1)
            thought = [text[head.end() : end.start() if end else None]]
            return thought, text[end.end() :] if end else None
    return None


def _outside_marks(text: str, *, thinks: bool) -> Split:
    """Return the text outside pairs of marks; an end without a beginning closes what the prompt's template opened."""
    parts: list[str] = []
    thought: list[str] = []
    at = 0
    inside = closed = False
    end = -1
    for mark in _MARK.finditer(text):
        if mark.start() < end:
            continue
        between = text[at : mark.start()]
        if mark["open"] is not None:
            (thought if inside else parts).append(between)
            inside, at = True, mark.end()
            if mark[0].startswith("<details") and (shut := _DETAILS_END.search(text, mark.end())):
                thought.append(text[mark.end() : shut.start()])
                inside, closed, at, end = False, True, shut.end(), shut.end()
        else:
            if not inside:
                thought += parts
                parts.clear()
            thought.append(between)
            inside, closed, at = False, True, mark.end()
    rest = text[at:]
    if thinks and not closed:
        return [*parts, *thought, rest], None
    if not inside:
        return thought, "".join([*parts, rest])
    before = "".join(parts)
    if before.strip() and _ENDED_BEFORE.search(before):
        return [*thought, rest], before
    return [*parts, *thought, rest], None


def thinks_aloud(text: str) -> bool:
    """Return whether a text reads like thinking without marks: "Wait, maybe ...", "Let me ..."."""
    words: set[str] = set()
    for word in _ALOUD.finditer(text):
        words.add(word[0].lower())
        if len(words) >= _ALOUD_ENOUGH:
            return True
    return False


STOP = re.compile(
    r"<\|(?:\w{1,20}[:_])?(?:im_end|im_stop|endoftext|end|end_of_text|end[▁_]of[▁_]sentence|eot|eot_id|eom_id|eos|return|call"
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
    r"(?:【?(?:次の)?(?:問題文?|設問)】?[ \t]*\d{0,3}[ \t]*[::]|【(?:次の)?問題[ \t]*\d{0,3}】"
    r"|\[問題[ \t]*\d{0,3}\]"
    r"|問[ \t]*\d{1,3}(?:[ \t]*[::.)]|[ \t\n])|第[ \t]*\d{1,3}[ \t]*問|(?:次の)?問題[ \t]*\d{1,3}[ \t]*(?=\n)"
    r"|(?:Next[ \t]question|Question|Q)[ \t]*\d{0,3}[ \t]*[::]"
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
_NUMBERED = re.compile(
    r"\n[ \t]*\(?(?:1|❶)[:.)\]、 \t][ \t]*(?P<a>[^\n]{0,120}+)[^\n]*+\n+"
    r"[ \t]*\(?(?:2|❷)[:.)\]、 \t][ \t]*(?P<b>[^\n]{0,120}+)[^\n]*+\n+"
    r"[ \t]*\(?(?:3|❸)[:.)\]、 \t][ \t]*(?P<c>[^\n]{0,120}+)"
)
"""Numbered lines, which are another question's choices only below a line that asks."""
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
    starts = [place.start() for place in (STOP.search(text), _ROLE_MARK.search(text)) if place]
    starts += [place.start() for place in (_HEADED.search(text), _ROLE_LINE.search(text)) if place]
    starts += [place for place in (turn, _choices_below(text)) if place is not None]
    return starts


def other_choices(text: str, choices: Sequence[str]) -> int | None:
    """Return the beginning of another question's choices, or of the question above them; None if there are none.

    Lines a, b, c count only if none has a verdict or this question's own words, as an explanation's lines would.
    """
    own = [words for choice in choices if (words := _letters(choice))]
    blocks = [*_LABELLED.finditer(text), *(block for block in _NUMBERED.finditer(text) if _asks_above(text, block))]
    for block in sorted(blocks, key=lambda block: block.start()):
        lines = [_letters(block[name]) for name in "abc"]
        if any(_VERDICT.search(block[name]) for name in "abc") or not all(lines):
            continue
        if any(line_of_own in line or line in line_of_own for line in lines for line_of_own in own):
            continue
        return _stem_above(text, block.start())
    return None


def _asks_above(text: str, block: re.Match[str]) -> bool:
    """Return whether the line above a list asks a question."""
    line = text.rfind("\n", max(0, block.start() - _LONGEST_STEM), block.start())
    return bool(_ASKS.search(text, line + 1, block.start()))


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
