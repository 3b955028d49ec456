"""Cards: a template over facts and provenance, with nothing unescaped, nothing invented and no empty heading.

A template is `model_card/*.md` or `dataset_cards/*.md`, in two parts that are rendered by two rules:

    ---
    license: {{ facts.license }}        header: every value is written as JSON, which is YAML; keys that end up empty
    language: {{ facts.languages }}     (null, "", [], {}) are dropped, and the whole is parsed before it is pushed
    ---
    # {{ recipe.name }}                 body: every value is escaped for Markdown, newlines become spaces
    {{ facts.rows | count }} rows       filters: count, percent, code (inline span), raw (names in fences)

What a template sees: `facts` (the stage's own facts.json), `provenance` (hub.Provenance), `repo_id`, `recipe` (name,
base, cutoff, licence, ...), `upstream` (facts.json of all stages above it, by stage name) and `results` (facts.json of
the evaluation that asked this model, once there is one, else none). Ask only of what may be absent `is defined`
or `is not none`: anything else that is absent stops the card, because a silent hole in a card is a claim.
A heading whose section came out empty is removed, so a template states its headings plainly.
"""

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import yaml

from medllm.errors import MedllmError
from medllm.hub import Provenance

PACKAGE = Path(__file__).parent
SPECIAL = re.compile(r"([\\`*_\[\]<>|~#$&])")
PLAIN = re.compile(r"[\w./@:+\-=, ]*")


class CardError(MedllmError):
    """A card that cannot be written from the facts there are."""


class _Markdown(str):
    """Text that a filter has made safe; it is not escaped again."""

    __slots__ = ()


def render(
    template: str,
    *,
    facts: Mapping[str, Any],
    provenance: Provenance,
    repo_id: str,
    recipe: Mapping[str, Any],
    upstream: Mapping[str, Mapping[str, Any]] | None = None,
    lineage: Mapping[str, Any] | None = None,
    results: Mapping[str, Any] | None = None,
) -> str:
    """Write the card: a template's name such as `model_card/merged.md`, and the facts it may use."""
    known = {
        "facts": facts,
        "provenance": provenance,
        "repo_id": repo_id,
        "recipe": recipe,
        "upstream": upstream or {},
        "lineage": lineage or {},
        "results": results,
    }
    header, body = _parts(template)
    try:
        metadata = yaml.safe_load(_environment("header").from_string(header).render(known)) or {}
        text = _environment("body").from_string(body).render(known)
    except (jinja2.UndefinedError, jinja2.TemplateNotFound) as fault:
        raise CardError(
            "card.missing-fact",
            f"{template}: the facts of {repo_id} lack what the card shows ({fault}). Rerun the stage, or correct"
            " the template.",
        ) from fault
    except yaml.YAMLError as fault:
        raise CardError(
            "card.broken-header", f"{template}: its header is not YAML ({fault}). Correct the template."
        ) from fault
    kept = {key: value for key, value in metadata.items() if value not in (None, "", [], {})}
    front = yaml.safe_dump(kept, allow_unicode=True, sort_keys=False, width=10_000)
    return f"---\n{front}---\n\n{without_empty_headings(text).strip()}\n"


def template_exists(template: str) -> bool:
    """Whether there is such a template: a stage may come without a card, and its folder then brings its own README."""
    return _path(template).is_file()


def without_empty_headings(text: str) -> str:
    r"""Remove headings without text below them; a heading over a filled sub-heading stays.

    >>> without_empty_headings("# Model\n\n## Limits\n\n## Use\nLoad it.")
    '# Model\n\n## Use\nLoad it.'
    """
    lines, kept, fenced = text.split("\n"), list[str](), False
    levels = []
    for line in lines:
        fenced ^= line.lstrip().startswith("```")
        heading = None if fenced else re.match(r"(#{1,6})\s", line)
        levels.append(len(heading[1]) if heading else 0)
    below, content = 0, False  # the level of the nearest kept heading below, and whether text is before it
    for line, level in zip(reversed(lines), reversed(levels), strict=True):
        if level == 0:
            content = content or bool(line.strip())
            kept.append(line)
        elif content or level < below:
            kept.append(line)
            below, content = level, False
        else:
            while kept and not kept[-1].strip():
                kept.pop()
    return "\n".join(reversed(kept))


def escape(value: object) -> str:
    r"""One value as Markdown text that shows exactly that value.

    >>> print(escape("a|b <script>"))
    a\|b \<script\>
    """
    if isinstance(value, _Markdown):
        return value
    if value is None:
        raise jinja2.UndefinedError("a value is none: ask `is not none` before printing it")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return format(value, ".6g")
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(escape(entry) for entry in value)
    return SPECIAL.sub(r"\\\1", " ".join(str(value).split()) if "\n" in str(value) else str(value))


def _parts(template: str) -> tuple[str, str]:
    path = _path(template)
    if not path.is_file():
        raise CardError("card.no-template", f"{template}: the card template does not exist. Reinstall medllm.")
    match = re.fullmatch(r"---\n(.*?)\n---\n(.*)", path.read_text(encoding="utf-8"), re.DOTALL)
    if not match:
        raise CardError(
            "card.no-header",
            f"{template}: the card template has no YAML header. Start it with a header between two lines of ---.",
        )
    return match[1], match[2]


def _piece(name: str) -> str | None:
    """A piece that several templates include: it has no header of its own."""
    path = _path(name)
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _path(template: str) -> Path:
    """Return a template's path: beside the package in a checkout, inside the package once installed."""
    inside = PACKAGE / template
    return inside if inside.is_file() else PACKAGE.parent / template


class _Environment(jinja2.Environment):
    """Jinja, except that `facts.items` is the fact of that name and not the method of a dict."""

    def getattr(self, obj: Any, attribute: str) -> Any:  # noqa: ANN401  jinja's own signature
        """A key before an attribute."""
        return obj[attribute] if isinstance(obj, Mapping) and attribute in obj else super().getattr(obj, attribute)


@cache
def _environment(part: str) -> jinja2.Environment:
    environment = _Environment(
        loader=jinja2.FunctionLoader(_piece),
        undefined=jinja2.StrictUndefined,
        finalize=_as_yaml if part == "header" else escape,
        autoescape=False,  # that would escape for HTML; `finalize` escapes for what is written here
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(count=_count, percent=_percent, code=_code, raw=_raw)
    return environment


def _as_yaml(value: object) -> str:
    if isinstance(value, jinja2.Undefined):
        return str(value)  # raises, and names what is missing
    return value if isinstance(value, _Markdown) else json.dumps(value, ensure_ascii=False, default=str)


def _count(value: int) -> _Markdown:
    return _Markdown(f"{value:,}")


def _percent(value: float) -> _Markdown:
    """A share as per cent with one decimal: 0.6789 is 67.9 %."""
    return _Markdown(f"{100 * value:.1f} %")


def _code(value: object) -> _Markdown:
    """An inline code span that the value cannot leave."""
    text = " ".join(str(value).split())
    fence = "`" * (1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return _Markdown(f"{fence}{pad}{text.replace('|', chr(92) + '|')}{pad}{fence}")


def _raw(value: object) -> _Markdown:
    """A plain name, unescaped, for code fences; anything that is no plain name stops the card."""
    if not PLAIN.fullmatch(str(value)):
        raise jinja2.UndefinedError(f"{value!r} is no plain name and may not be in a code block")
    return _Markdown(value)
