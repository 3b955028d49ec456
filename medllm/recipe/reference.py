"""Names in a recipe: an earlier stage, `ORG/NAME@REVISION` on the Hub, or `./folder` beside the recipe."""

import re
from dataclasses import dataclass
from typing import Literal, get_args

Stage = Literal["corpus", "cpt", "preferences", "rpo", "merge", "evaluate", "space"]
Kind = Literal["model", "dataset", "space"]

STAGES: tuple[Stage, ...] = get_args(Stage)
"""The stages in the order of the pipeline; a stage may use only those before it."""

KINDS: dict[Stage, Kind] = {
    "corpus": "dataset",
    "cpt": "model",
    "preferences": "dataset",
    "rpo": "model",
    "merge": "model",
    "evaluate": "dataset",
    "space": "space",
}
"""The kind of repository that each stage pushes."""

_HUB = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
_API = re.compile(r"(?P<maker>openai|endpoint):(?P<model>\S+)")


@dataclass(frozen=True)
class Reference:
    """One source as written in the recipe, and its parts."""

    text: str
    where: Literal["base", "stage", "hub", "folder", "api", "unknown"]
    repo_id: str | None = None
    revision: str | None = None


def parse_reference(text: str) -> Reference:
    """Parse a source; a text of no known form becomes `unknown`, which a rule reports.

    >>> parse_reference("Qwen/Qwen2.5-7B@main").revision
    'main'
    >>> [parse_reference(text).where for text in ("base", "cpt", "./texts", "openai:gpt-4o", "corpsu")]
    ['base', 'stage', 'folder', 'api', 'unknown']
    """
    if text == "base":
        return Reference(text, "base")
    if text in STAGES:
        return Reference(text, "stage")
    if text.startswith(("./", "../", "/")):
        return Reference(text, "folder")
    if _API.fullmatch(text):
        return Reference(text, "api")
    if found := _HUB.fullmatch(text):
        return Reference(text, "hub", found["repo"], found["revision"])
    return Reference(text, "unknown")
