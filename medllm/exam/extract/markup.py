"""Removal of markup from a reply: Markdown, HTML and LaTeX go, boxes and answer tags become plain marks."""

import re

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
    rf"<\|?(?P<end>/|end_of_)?(?:{_TAG_NAME}|begin_of_box|box)\|?>\s*|\[(?P<shut>/)?(?:FINAL_?)?ANSWER\]\s*", re.I
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
        text = _TAG.sub(lambda tag: "\n" if tag["end"] or tag["shut"] else "\ntagged: ", text)
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
