"""The Hub's licence identifiers: the Hub and this hub refuse a card whose `license` is another word."""

import re

_WORDS = """
afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0
bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5
cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0
cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0 etalab-2.0
eupl-1.1 eupl-1.2 fair-noncommercial-research-license gemma gfdl gpl gpl-2.0 gpl-3.0 grok2-community h-research
intel-research isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 lppl-1.3c mit
mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openmdw-1.0 openrail openrail++ osl-3.0 other pddl postgresql unknown
unlicense wtfpl zlib
"""
HUB_LICENSES = frozenset(_WORDS.split())
"""As the Hub's documentation lists them ("Licenses", hub-docs) with those added since."""


def hub_word(written: object) -> str:
    """Map a written licence to the Hub's identifier; `other` where the Hub has none, or where there are several.

    >>> hub_word("Apache-2.0"), hub_word("qwen"), hub_word(["mit"]), hub_word("mit, cc-by-4.0"), hub_word(None)
    ('apache-2.0', 'other', 'mit', 'other', 'other')
    """
    several = written if isinstance(written, list | tuple) else [written]
    word = str(several[0]).strip().lower() if len(several) == 1 else ""
    return word if word in HUB_LICENSES else "other"


def license_name(written: object) -> str | None:
    """The `license_name` written beside `license: other`: lower case, without spaces; None when nothing is known.

    >>> license_name("Qwen LICENSE Agreement"), license_name(["mit", "cc-by-4.0"]), license_name("other")
    ('qwen-license-agreement', 'mit-cc-by-4.0', None)
    """
    several = written if isinstance(written, list | tuple) else [written]
    text = " ".join(str(one) for one in several if one)
    name = re.sub(r"[^\w.+]+", "-", text.lower()).strip("-")
    return name if name not in ("", "other", "unknown", "none") else None
