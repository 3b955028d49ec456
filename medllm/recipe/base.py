"""Base class of every recipe block, with the dump that goes into a digest, and the names that a recipe may refer to."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Any, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, ValidationInfo, field_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

HUB_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""The names that the Hub allows."""


class Settings(BaseModel):
    """A block of the recipe; the sentence under each key is its only documentation."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False, protected_namespaces=()
    )

    excluded_from_digest: ClassVar[frozenset[str]] = frozenset()
    """Keys that change where or how fast a stage runs, never its result."""

    keys_since: ClassVar[Mapping[str, Any]] = {}
    """Keys that came after the first results, each with the value that those were made with: with that value a key is
    left out of the digest, so that they keep theirs."""

    addresses: ClassVar[frozenset[str]] = frozenset()
    """Keys that may hold a server's address: another host or port is the same artifact."""

    @field_validator("*", mode="before")
    @classmethod
    def _no_silent_number(cls, value: Any, info: ValidationInfo) -> Any:  # noqa: ANN401  any YAML value
        # Python reads true as 1, and pydantic reads 0 as 1970-01-01: in a recipe both are mistakes.
        wanted = str(cls.model_fields[str(info.field_name)].annotation)
        if isinstance(value, bool) and "bool" not in wanted:
            raise ValueError("this key takes no true or false")
        if isinstance(value, int | float) and "date" in wanted:
            raise ValueError("write a date as 2017-12-31")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _none_is_null(cls, value: Any, info: ValidationInfo) -> Any:  # noqa: ANN401  any YAML value
        # YAML writes null, people write none: both leave out a key that may be left out.
        nullable = NoneType in get_args(cls.model_fields[str(info.field_name)].annotation)
        return None if value == "none" and nullable else value

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Add `none` to the values of every key that may be null, for editors."""
        schema = handler(core)
        for key in handler.resolve_ref_schema(schema).get("properties", {}).values():
            if {"type": "null"} in key.get("anyOf", ()):
                key["anyOf"].append({"const": "none"})
        return schema


def settings_for_digest(settings: Settings) -> dict[str, Any]:
    """Dump the settings that decide the result, as plain JSON values.

    Hardware and the split of a batch over devices are left out: the same stage on other machines is the same artifact.
    Defaults are written out: when a later version changes one, the stage's digest changes with it.
    """
    dump: dict[str, Any] = settings.model_dump(mode="json")
    return _without(settings, dump)


def _without(settings: Settings, dump: dict[str, Any]) -> dict[str, Any]:
    kept = {}
    for key, value in dump.items():
        if key in settings.excluded_from_digest or (key in settings.keys_since and value == settings.keys_since[key]):
            continue
        address = key in settings.addresses and str(value).startswith(("http://", "https://"))
        kept[key] = "a server" if address else _inner(getattr(settings, key), value)
    return kept


def _inner(value: object, dump: Any) -> Any:  # noqa: ANN401  a JSON value has no narrower type
    if isinstance(value, Settings):
        return _without(value, dump)
    if isinstance(value, dict):
        return {key: _inner(value[key], part) for key, part in dump.items()}
    if isinstance(value, tuple):
        return [_inner(element, part) for element, part in zip(value, dump, strict=True)]
    return dump


Stage = Literal["corpus", "cpt", "teach", "sft", "preferences", "rpo", "rounds", "grpo", "merge", "evaluate", "space"]
Kind = Literal["model", "dataset", "space"]

STAGES: tuple[Stage, ...] = get_args(Stage)
"""The stages in the order of the pipeline; a stage may use only those before it. `sft` comes behind the training whose
model it continues."""

KINDS: dict[Stage, Kind] = {
    "corpus": "dataset",
    "cpt": "model",
    "teach": "dataset",
    "sft": "model",
    "preferences": "dataset",
    "rpo": "model",
    "rounds": "model",
    "grpo": "model",
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


def base_of(source: str) -> str:
    """Name the base of an adapter among a stage's sources, where the recipe states no `base` for all adapters."""
    return f"base of {source}"


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
    if match := _HUB.fullmatch(text):
        return Reference(text, "hub", match["repo"], match["revision"])
    return Reference(text, "unknown")
