"""Personal data of patients in a text: rules that find it, words that hide it, and answers of a reviewer."""

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

_NUMBER = r"(?:\d{1,2}|[一二三四五六七八九十]{1,3})"
_ERA = rf"(?:(?:明治|大正|昭和|平成|令和|[明大昭平令]|[MTSHR]\.?)\s?(?:元|{_NUMBER})|(?:19|20)\d{{2}})"
_DAY = (
    rf"(?<![A-Za-z\d]){_ERA}(?:\s?年\s?{_NUMBER}\s?月\s?{_NUMBER}\s?日?|"
    r"\s?[./-]\s?\d{1,2}\s?[./-]\s?\d{1,2})"
)
"""A day as people write it: by era or by year, with signs or with 年月日."""
_IS = r"\s?(?:[:=は]|番号|No\.?|\[|\()?\s?"
"""Characters between a label and its value."""

RULES: dict[str, re.Pattern[str]] = {
    "mail": re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){0,4}\.[A-Za-z]{2,24}\b"),
    "phone": re.compile(
        # The first sign comes first in the pattern, so that the search jumps from one to the next.
        r"[0+(](?<![\d./-].)(?:(?<![A-Za-z].)|(?<=TEL.)|(?<=[Tt]el.)|(?<=FAX.)|(?<=[Ff]ax.))(?:"
        r"(?<=0)(?:[5-9]0[-.\s(]?\d{4}[-.\s)]?\d{4}|(?:120|800|570|990)[-\s(]?\d{2,4}[-\s)]?\d{3,4}|"
        r"\d{1,4}[-(]\d{1,4}[-)]\d{4}|(?:\d\.\d{4}|\d{2}\.\d{3}|\d{3}\.\d{2})\.\d{4})|"
        r"(?<=\()0\d{1,4}\)\s?\d{1,4}[-\s]\d{4}|"
        r"(?<=\+)\(?81\)?[-\s]?(?:\(0\))?\d{1,4}[-\s]?\d{2,4}[-\s]?\d{4})(?![\d-])"
    ),
    "birth": re.compile(
        rf"(?:生年月日|誕生日|生まれた日){_IS}\s?{_DAY}|{_DAY}\s?(?:[生う]まれ|出生|生(?![後まじ存体命活理検化着涯殖産じ]))"
    ),
    "record": re.compile(
        r"(?:(?:カルテ|診察券|患者|病歴|受診者)\s?(?:番号|ID|No\.?|NO\.?|№)\s?[:=はが]?\s?[A-Za-z]{0,3}[-\s]?\d(?:-?\d){3,11}|"
        r"(?:入院|登録|整理)\s?(?:番号|ID|No\.?|NO\.?|№)\s?[:=はが]?\s?[A-Za-z]{0,3}[-\s]?\d{4,12})(?![\d-])|"
        r"診察券\s?番号\s?[:はが]?\s?\d{2,6}-\d{2,6}|"
        r"(?:運転免許証?|旅券|パスポート|在留カード|口座)\s?(?:番号|No\.?)?\s?[:=はが]?\s?[A-Z]{0,2}\d(?:[-\s]?\d){6,11}[A-Z]{0,2}"
    ),
    "insurance": re.compile(
        r"(?:被保険者証?|保険者|マイナンバー(?:カード)?|個人番号|記号番号|基礎年金番号|年金番号|公費負担者|受給者)(?:証)?(?:の)?(?:番号)?\s?[:=はが]?\s?\d(?:[-\s]?\d){5,13}(?!\d)|"
        r"(?:被?保険者?証)(?:の)?記号\s?:?\s?[\w・-]{1,8}\s?[,、・]?\s?番号\s?:?\s?\d{1,8}"
    ),
    "name": re.compile(
        r"(?:患者名|患者氏名|氏名|お名前|被験者名)\s?[:=]\s?[一-龥々ぁ-んァ-ヶー]{1,5}[\s　]?"
        r"[一-龥々ぁ-んァ-ヶー]{0,5}|"
        rf"(?:氏名[\s　:]+|患者[\s　]?[:=][\s　]?)(?:{_SURNAMES})[\s　]?[一-龥々ぁ-んァ-ヶ]{{1,4}}|"
        r"(?:フリガナ|ふりがな|カナ氏名|氏名カナ|氏名\(カナ\))\s?[:=]?\s?[ァ-ヶーぁ-ん]{2,6}[\s　][ァ-ヶーぁ-ん]{2,6}"
    ),
    "address": re.compile(
        r"〒\s?\d{3}[-\s]?\d{4}(?!\d)|郵便番号\s?[:=はが]?\s?\d{3}[-\s]?\d{4}(?!\d)|"
        r"(?:住所|居住地|本籍地?|転居先)\s?[:=は]?\s?(?:東京都|北海道|(?:京都|大阪)府|[一-龥]{2,3}県|[一-龥ヶケノ]{1,5}[市区町村郡](?![一-龥]{0,2}(?:町村|役所|議会)))"
    ),
}
"""Patterns by rule; the names of the rules are in the report and in the words that hide a finding."""

_ADDRESSED = re.compile(rf"(?:{_SURNAMES})[\s　]?[一-龥ぁ-んァ-ヶ]{{0,4}}(?:様|さん|殿)(?![式々])")
"""A name too; as a pattern of its own the search knows its possible first characters and is five times as fast."""

_DIALLED = re.compile(
    r"(?:TEL|Tel|tel|FAX|Fax|fax|ファ(?:ッ)?クス|電話|携帯|連絡先|PHS|ピッチ)(?:番号)?[\s:.はが()]{0,3}"
    r"(?:0\d(?:[\s()]{0,2}\d){8,9}(?!\d)|(?<=PHS).{0,3}\d{4}(?!\d))|内線(?:番号)?[\s:.はが]{0,2}\d{3,5}(?!\d)"
)
"""Digits without hyphens, or separated by blanks: a telephone number only after a word for a telephone."""

_SPELT_MAIL = re.compile(
    r"[A-Za-z0-9._%+-]{1,64}\s?[\[(]\s?(?:at|アット|アットマーク)\s?[\])]\s?(?:[A-Za-z0-9-]{1,63}\.){1,5}[A-Za-z]{2,24}\b"
)
"""An address whose @ is spelt out."""

_HINTS = {
    "mail": ("@",),
    "birth": ("生",),
    "record": ("番号", "ID", "No", "NO", "№", "旅券", "免許", "パスポート", "在留", "口座"),
    "insurance": ("保険者", "番号", "マイナンバー", "受給者", "負担者", "険証"),
    "name": ("名", "患者", "リガナ", "りがな", "カナ"),
    "address": ("〒", "郵便番号", "住所", "居住地", "本籍", "転居先"),
}
"""A rule is tried only on a text that contains one of these."""

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
"""The same rules by English labels, each with words; a rule is tried only if the text contains one of them."""

_PATTERNS = (
    *((rule, pattern, _HINTS.get(rule, ("",))) for rule, pattern in RULES.items()),
    ("name", _ADDRESSED, ("様", "さん", "殿")),
    ("phone", _DIALLED, ("TEL", "Tel", "tel", "FAX", "Fax", "fax", "クス", "電話", "携帯", "連絡先", "PHS", "内線")),
    ("mail", _SPELT_MAIL, ("[at]", "(at)", "[ at ]", "( at )", "アット")),
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
class PiiFinding:
    """A place in a document that seems to name a patient; the text found there is never written down."""

    id: str
    """Equal for the same words in the same document, so that a reviewer's answer stays valid."""
    document: str
    rule: str
    begin: int
    end: int
    around: str
    """The sentence around the finding, with all findings hidden."""


def find(text: str, document: str) -> list[PiiFinding]:
    """Find every match of a rule in the text, in order of place; of two that overlap, the earlier and longer."""
    wide = _one_width(text)
    spots = sorted(
        (
            (match.start(), match.end(), rule)
            for rule, pattern, hints in _PATTERNS
            if any(hint in wide for hint in hints)
            for match in pattern.finditer(wide)
        ),
        key=lambda spot: (spot[0], -spot[1]),
    )
    findings: list[PiiFinding] = []
    for begin, end, rule in spots:
        if findings and begin < findings[-1].end:
            continue
        name = hashlib.sha256(f"{document}\x1f{rule}\x1f{wide[begin:end]}".encode("utf-8", "replace")).hexdigest()[:12]
        findings.append(PiiFinding(name, document, rule, begin, end, ""))
    return [
        PiiFinding(finding.id, document, finding.rule, finding.begin, finding.end, _around(text, finding, findings))
        for finding in findings
    ]


def hide(text: str, findings: list[PiiFinding], offset: int = 0) -> str:
    """Replace each finding in the text by a word."""
    for finding in reversed(findings):
        text = text[: max(finding.begin - offset, 0)] + WORDS[finding.rule] + text[max(finding.end - offset, 0) :]
    return text


def _around(text: str, finding: PiiFinding, findings: list[PiiFinding]) -> str:
    begin, end = max(finding.begin - 20, 0), min(finding.end + 20, len(text))
    inside = [other for other in findings if other.end > begin and other.begin < end]
    begin, end = min(begin, inside[0].begin), max(end, inside[-1].end)
    return hide(text[begin:end], inside, begin).replace("\n", " ")


_HYPHENS = np.array([0x2010, 0x2011, 0x2012, 0x2013, 0x2014, 0x2015, 0x2212, 0x2500, 0x2501, 0xFE58, 0xFE63, 0xFF70])
_HYPHEN_IN_NUMBER = re.compile(r"(?<=\d)[ー一](?=\d)")


def _one_width(text: str) -> str:
    """Convert digits, letters and signs to half width and hyphens to one sign; places stay the same."""
    if text.isascii():
        return text
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.dtype("<u4"))
    wide = (codes >= 0xFF01) & (codes <= 0xFF5E)
    codes = np.where(wide, codes - 0xFEE0, codes)
    codes = np.where(np.isin(codes, _HYPHENS), ord("-"), codes).astype("<u4")
    return _HYPHEN_IN_NUMBER.sub("-", codes.tobytes().decode("utf-32-le", "surrogatepass"))
