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
    if "&lt;" in text:
        text = _ESCAPED.sub(r"<\1>", text)
    if "<|channel|>" in text:
        return _final_channel(text)
    for shape in (_spoken_channels, _announced):
        known, visible = shape(text)
        if known:
            return visible
    if _BRACKET.search(text):
        return _outside_marks(text, thinks=thinks)
    return None if thinks else text


def _final_channel(text: str) -> str | None:
    """Return the first final message of a reply in channels (harmony)."""
    for message in _CHANNEL.finditer(text):
        if message["name"].lower() == "final":
            return text[message.end() :]
    return None


def _spoken_channels(text: str) -> tuple[bool, str | None]:
    """Read channels whose special tokens were dropped in decoding: "analysis...assistantfinal..."; whether it is so."""
    if "assistant" in text and (final := _SPOKEN_FINAL.search(text)):
        return True, text[final.end() :]
    if _SPOKEN_OPEN.match(text):
        return True, None
    if reply := _SPOKEN_REPLY.match(text):
        return True, text[reply.end() :]
    return False, None


def _announced(text: str) -> tuple[bool, str | None]:
    """Remove thinking that words announce rather than marks; whether words do."""
    for begins, ends in _HEADS:
        if head := begins.match(text):
            end = ends.search(text, head.end() - 1)
            return True, text[end.end() :] if end else None
    return False, None


def _outside_marks(text: str, *, thinks: bool) -> str | None:
    """Return the text outside pairs of marks; an end without a beginning closes what the prompt's template opened."""
    parts: list[str] = []
    at = 0
    inside = closed = False
    end = -1
    for mark in _MARK.finditer(text):
        if mark.start() < end:
            continue
        if mark["open"] is not None:
            if not inside:
                parts.append(text[at : mark.start()])
            inside, at = True, mark.end()
            if mark[0].startswith("<details") and (shut := _DETAILS_END.search(text, mark.end())):
                inside, closed, at, end = False, True, shut.end(), shut.end()
        else:
            if not inside:
                parts.clear()
            inside, closed, at = False, True, mark.end()
    if thinks and not closed:
        return None
    if not inside:
        return "".join([*parts, text[at:]])
    before = "".join(parts)
    return before if before.strip() and _ENDED_BEFORE.search(before) else None


def thinks_aloud(text: str) -> bool:
    """Return whether a text reads like thinking without marks: "Wait, maybe ...", "Let me ..."."""
    found: set[str] = set()
    for word in _ALOUD.finditer(text):
        found.add(word[0].lower())
        if len(found) >= _ALOUD_ENOUGH:
            return True
    return False
