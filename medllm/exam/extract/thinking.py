"""The thinking of a model before its reply: the marks of every family, and the text without the thinking."""

import re

_NAME = (
    r"(?:\w{1,12}[:_])?(?:(?:ant)?think(?:ing)?(?:_fast(?:er)?)?|thoughts?|reason(?:ing)?|reflection|scratch_?pad"
    r"|(?:inner|internal)?_?monologue|plan(?:ning)?|思考|推論|考察|分析|chain_of_thought|cot|analysis|deliberation)"
)
_SHORT_NAME = r"(?:think(?:ing)?|thoughts?|reasoning|思考)"
_OPEN = (
    rf"<{_NAME}(?:\s[^<>\n]{{0,60}})?>|\[{_SHORT_NAME}\]|◁{_NAME}▷"
    rf"|<\|(?:begin_of_|begin_|start_of_|start_)?{_NAME}(?:_start|_begin)?\|>"
    r"|<unused94>(?:thought\b)?|<\|channel>thought\b|\[unused16\]|<\|inner_prefix\|>"
    r'|<details\s+type="?reasoning"?[^<>\n]{0,80}>'
)
_CLOSE = (
    rf"</{_NAME}>|\[/{_SHORT_NAME}\]|◁/{_NAME}▷|<\|(?:end_of_|end_|/){_NAME}\|>|<\|{_NAME}_end\|>"
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
    found: set[str] = set()
    for word in _ALOUD.finditer(text):
        found.add(word[0].lower())
        if len(found) >= _ALOUD_ENOUGH:
            return True
    return False
