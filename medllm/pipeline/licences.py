"""Licences of base and data compared with the licence of the output: every conflict is named, none is decided."""

import re
from pathlib import Path
from typing import Any

import yaml

from medllm.localhub.validation import hub_word, license_name

SHARE_ALIKE = re.compile(r"-sa\b|-sa-|^(a?gpl|gfdl)")
OWN_TERMS = re.compile(r"^(llama|gemma|qwen|deepseek|other|.*-community|.*-research)")
PERMISSIVE = ("apache-2.0", "mit", "bsd-3-clause", "bsd-2-clause", "cc0-1.0", "unlicense")


def front_matter(readme: Path) -> dict[str, Any]:
    """The header of a card, or nothing when there is no readable one."""
    if not readme.is_file():
        return {}
    found = re.match(r"---\r?\n(.*?)\r?\n---", readme.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    try:
        head = yaml.safe_load(found[1]) if found else None
    except yaml.YAMLError:
        return {}
    return head if isinstance(head, dict) else {}


def license_of(readme: Path) -> str | None:
    """The licence a card states, by its name where it is one of its owner's own; several are joined by commas."""
    header = front_matter(readme)
    stated = header.get("license")
    words = [str(one).strip().lower() for one in (stated if isinstance(stated, list) else [stated]) if one]
    named = header.get("license_name")
    if words == ["other"] and isinstance(named, str) and named.strip():
        words = [named.strip().lower()]
    return ", ".join(words) or None


def link_of(readme: Path, repo_id: str | None) -> str | None:
    """Find the text of the licence that a card states: its link, made absolute, or the repository of the card."""
    link = front_matter(readme).get("license_link")
    if isinstance(link, str) and re.match(r"https?://", link):
        return link
    if repo_id is None:
        return None
    file = link.strip("./ ") if isinstance(link, str) else ""
    return f"https://huggingface.co/{repo_id}" + (f"/blob/main/{file}" if file else "")


def chosen(declared: str | None, base: str | None) -> str:
    """The Hub's word for the licence of what is made: as declared, else the base's, whose terms reach every model.

    A card with a word that the Hub does not know is refused there: own terms are `other`, named by `terms_for`.

    >>> chosen(None, "qwen"), chosen(None, "apache-2.0"), chosen("MIT", "gemma")
    ('other', 'apache-2.0', 'mit')
    """
    return hub_word(declared or base)


def terms_for(declared: str | None, base: str | None, link: str | None) -> dict[str, str | None]:
    """List the licence fields of a card: the Hub's word and, for terms that have none, their name and link."""
    word = chosen(declared, base)
    if word != "other":
        return {"license": word, "license_name": None, "license_link": None}
    own = declared is None or declared.lower() == base
    return {"license": word, "license_name": license_name(declared or base), "license_link": link if own else None}


def conflicts(license: str, base: str | None, data: dict[str, str | None]) -> list[str]:
    """Name what does not go together; `data` maps each source to its licence, None where it states none.

    >>> conflicts("apache-2.0", "apache-2.0", {"org/texts": "cc-by-nc-4.0"})
    ['org/texts is cc-by-nc-4.0, which forbids commercial use; apache-2.0 allows it']
    """
    found = []
    if base is None:
        found.append("the base states no licence")
    elif OWN_TERMS.match(base) and license.lower() != base:
        found.append(f"the base is under {base}, whose terms reach every model made from it; this one is {license}")
    for name, terms in sorted({"the base": base, **data}.items()):
        if terms is None:
            if name != "the base":
                found.append(f"{name} states no licence")
            continue
        if "-nc" in terms and "-nc" not in license:
            found.append(f"{name} is {terms}, which forbids commercial use; {license} allows it")
        if "-nd" in terms:
            found.append(f"{name} is {terms}, which forbids derived works")
        if SHARE_ALIKE.search(terms) and license in PERMISSIVE:
            found.append(f"{name} is {terms}, which asks for the same terms; {license} is laxer")
    return found
