"""Personal data of patients in a text: rules that find it, words that hide it, and answers that a person gave."""

import hashlib
import re
from dataclasses import dataclass

import numpy as np

_SURNAMES = (
    "佐藤|鈴木|高橋|田中|伊藤|渡辺|渡邊|山本|中村|小林|加藤|吉田|山田|佐々木|山口|松本|井上|木村|斎藤|斉藤|清水|山崎|阿部|池田|橋本|"
    "山下|石川|中島|前田|藤田|小川|後藤|岡田|長谷川|村上|近藤|石井|坂本|遠藤|青木|藤井|西村|福田|太田|三浦|岡本|松田|中川|中野|原田|小野|"
    "竹内|金子|和田|中山|石田|上田|森田|柴田|酒井|工藤|横山|宮崎|宮本|内田|高木|安藤|谷口|大野|丸山|今井|高田|藤本|武田|村田|上野|杉山|"
    "増田|小島|小山|千葉|大塚|平野|久保|松井|菅原|木下|野口|野村|松尾|菊地|菊池|佐野|大西|杉本|新井|浜田"
)

RULES: dict[str, re.Pattern[str]] = {
    "mail": re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){0,4}\.[A-Za-z]{2,24}\b"),
    "phone": re.compile(
        # The first sign stands before all else, so that the search may leap from one to the next.
        r"[0+](?<![\d.-].)(?:(?<=0)(?:[5-9]0[-(\s]?\d{4}[-)\s]?\d{4}|\d{1,4}[-(]\d{1,4}[-)]\d{4})|"
        r"(?<=\+)81[-\s]?\d{1,4}[-\s]?\d{2,4}[-\s]?\d{4})(?![\d-])"
    ),
    "birth": re.compile(
        r"(?:生年月日|誕生日|生まれた日)[\s:：は]{0,4}(?:(?:明治|大正|昭和|平成|令和|[MTSHR])\s?\d{1,2}|\d{4})\s?[年./-]\s?\d{1,2}\s?[月./-]\s?\d{1,2}|"
        r"(?:(?:明治|大正|昭和|平成|令和)\s?\d{1,2}|(?:19|20)\d{2})\s?年\s?\d{1,2}\s?月\s?\d{1,2}\s?日\s?(?:生まれ|生(?![後まじ存体命活理検化]))"
    ),
    "record": re.compile(
        r"(?:カルテ|診察券|患者|病歴|受診者|入院|登録)\s?(?:番号|ID|ＩＤ|No\.?|NO\.?|№)\s?[:：はが]?\s?[A-Za-z]{0,3}[-\s]?\d{4,12}|"
        r"診察券\s?番号\s?[:はが]?\s?\d{2,6}-\d{2,6}"
    ),
    "insurance": re.compile(
        r"(?:被保険者|保険者|マイナンバー|個人番号|記号番号)(?:証)?(?:番号)?\s?[:：はが]?\s?[\d-]{6,14}|"
        r"保険証(?:の)?記号\s?:?\s?[\w・-]{1,8}\s?番号\s?:?\s?\d{1,8}"
    ),
    "name": re.compile(
        r"(?:患者名|患者氏名|氏名|お名前|被験者名)\s?[:：]\s?[一-龥ぁ-んァ-ヶ]{1,5}[\s　]?[一-龥ぁ-んァ-ヶ]{0,5}|"
        rf"氏名[\s　]+(?:{_SURNAMES})[\s　]?[一-龥ぁ-んァ-ヶ]{{1,4}}"
    ),
    "address": re.compile(
        r"〒\s?\d{3}-?\d{4}|(?:住所|居住地)\s?[:：]\s?(?:東京都|北海道|(?:京都|大阪)府|[一-龥]{2,3}県)"
    ),
}
"""What is looked for; the names of the rules stand in the report and in the words that hide a finding."""

_ADDRESSED = re.compile(rf"(?:{_SURNAMES})[\s　]?[一-龥ぁ-んァ-ヶ]{{0,4}}(?:様|さん|殿)(?![式々])")
"""A name too; apart from its rule, the search knows the characters it may begin with and is five times as fast."""

_DIALLED = re.compile(r"(?:TEL|Tel|tel|FAX|Fax|fax|電話)(?:番号)?[\s:.はが]{0,3}0\d{9,10}(?!\d)")
"""Digits without a hyphen are a telephone's only where they are said to be."""

_HINTS = {
    "mail": ("@",),
    "birth": ("生年月日", "誕生日", "生まれ", "日生"),
    "record": ("番号", "ID", "No", "NO", "№"),
    "insurance": ("保険者", "番号", "マイナンバー"),
    "name": ("名",),
    "address": ("〒", "住所", "居住地"),
}
"""One of these must stand in a text before its rule is worth trying."""

_ENGLISH = (
    (
        "name",
        r"(?:Patient|patient)(?:'s)? [Nn]ame\s?:\s?[A-Z][a-z]+(?: [A-Z][a-z.]*){0,3}",
        ("name:", "Name:", "ame :"),
    ),
    ("birth", r"(?:DOB|Date of [Bb]irth|date of birth)\s?:?\s?\d{1,4}[./-]\d{1,2}[./-]\d{1,4}", ("DOB", "ate of")),
    (
        "record",
        r"(?:MRN|(?:Medical|medical) [Rr]ecord [Nn](?:umber|o\.?)|[Pp]atient ID)\s?[:#]?\s?[A-Z]{0,3}-?\d{4,12}",
        ("MRN", "edical", "atient ID"),
    ),
)
"""The same by their English labels, each with words of which one must stand in the text."""

_PATTERNS = (
    *((rule, pattern, _HINTS.get(rule, ("",))) for rule, pattern in RULES.items()),
    ("name", _ADDRESSED, ("様", "さん", "殿")),
    ("phone", _DIALLED, ("TEL", "Tel", "tel", "FAX", "Fax", "fax", "電話")),
    *((rule, re.compile(pattern), hints) for rule, pattern, hints in _ENGLISH),
)

WORDS = {
    "mail": "［メール］",
    "phone": "［電話番号］",
    "birth": "［生年月日］",
    "record": "［記録番号］",
    "insurance": "［被保険者番号］",
    "name": "［氏名］",
    "address": "［住所］",
}


@dataclass(frozen=True)
class Finding:
    """A place in a document that seems to name a patient; what was found there is never written down."""

    id: str
    """The same for the same words in the same document, so that a person's answer stays with it."""
    document: str
    rule: str
    begin: int
    end: int
    around: str
    """The sentence about it, with all findings hidden."""


def find(text: str, document: str) -> list[Finding]:
    """Everything in the text that a rule matches, in order of place; of two that overlap, the earlier and longer."""
    wide = _one_width(text)
    spots = sorted(
        (
            (found.start(), found.end(), rule)
            for rule, pattern, hints in _PATTERNS
            if any(hint in wide for hint in hints)
            for found in pattern.finditer(wide)
        ),
        key=lambda spot: (spot[0], -spot[1]),
    )
    findings: list[Finding] = []
    for begin, end, rule in spots:
        if findings and begin < findings[-1].end:
            continue
        name = hashlib.sha256(f"{document}\x1f{rule}\x1f{wide[begin:end]}".encode("utf-8", "replace")).hexdigest()[:12]
        findings.append(Finding(name, document, rule, begin, end, ""))
    return [Finding(one.id, document, one.rule, one.begin, one.end, _around(text, one, findings)) for one in findings]


def hide(text: str, findings: list[Finding], offset: int = 0) -> str:
    """The text with a word in the place of each finding."""
    for one in reversed(findings):
        text = text[: max(one.begin - offset, 0)] + WORDS[one.rule] + text[max(one.end - offset, 0) :]
    return text


def _around(text: str, one: Finding, findings: list[Finding]) -> str:
    begin, end = max(one.begin - 20, 0), min(one.end + 20, len(text))
    inside = [other for other in findings if other.end > begin and other.begin < end]
    begin, end = min(begin, inside[0].begin), max(end, inside[-1].end)
    return hide(text[begin:end], inside, begin).replace("\n", " ")


def _one_width(text: str) -> str:
    """Digits, letters and signs in half width, character for character, so that places stay what they are."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.dtype("<u4"))
    wide = (codes >= 0xFF01) & (codes <= 0xFF5E)
    return np.where(wide, codes - 0xFEE0, codes).tobytes().decode("utf-32-le", "surrogatepass") if wide.any() else text
