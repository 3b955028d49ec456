"""Licences of texts: licence names in one spelling, compared with an allow-list."""

import re
import unicodedata

# Licences that allow training a model and showing its corpus. A recipe may name its own list instead.
ALLOWED = (
    "apache-2.0",
    "cc-by-3.0",
    "cc-by-4.0",
    "cc-by-sa-3.0",
    "cc-by-sa-4.0",
    "cc0-1.0",
    "gjstu-2.0",
    "mit",
    "pdl-1.0",
    "public-domain",
)

_ALIASES = {
    "cc0": "cc0-1.0",
    "publicdomain": "public-domain",
    "pd": "public-domain",
    "パブリックドメイン": "public-domain",
    "公共データ利用規約第1.0版": "pdl-1.0",
    "公共データ利用規約(第1.0版)": "pdl-1.0",
    "公共データ利用規約": "pdl-1.0",
    "政府標準利用規約第2.0版": "gjstu-2.0",
    "政府標準利用規約(第2.0版)": "gjstu-2.0",
    "apache2.0": "apache-2.0",
    "apache-2": "apache-2.0",
    "apache": "apache-2.0",
    "クリエイティブ・コモンズ表示4.0": "cc-by-4.0",
}
_CREATIVE_COMMONS = re.compile(r"creativecommons\.org/(licenses|publicdomain)/([a-z-]+)/(\d\.\d)")
_UNKNOWN = {"", "unknown", "none", "null", "n/a", "other", "不明", "-"}


def read_license(written: str | None) -> str | None:
    """Return one spelling for a licence name or address, or None when none is stated: unknown is not allowed.

    >>> read_license("CC BY-SA 4.0"), read_license("https://creativecommons.org/licenses/by/4.0/deed.ja")
    ('cc-by-sa-4.0', 'cc-by-4.0')
    >>> read_license("unknown") is None
    True
    """
    text = unicodedata.normalize("NFKC", written or "").strip().lower()
    address = _CREATIVE_COMMONS.search(text)
    if address:
        kind, name, version = address.groups()
        return "cc0-1.0" if name == "zero" else "public-domain" if kind == "publicdomain" else f"cc-{name}-{version}"
    if text in _UNKNOWN:
        return None
    text = re.sub(r"\s+", "" if re.search(r"[ぁ-んァ-ヶ一-龥]", text) else "-", text).removesuffix("-license")
    return _ALIASES.get(text, text)
