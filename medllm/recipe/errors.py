"""Errors of a recipe as place, fault and mend, and the messages for what the schema rejects."""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from medllm.recipe.yaml_reader import Lines


@dataclass(frozen=True)
class RecipeFault:
    """One error of a recipe: its place, what is wrong and what to do."""

    place: str
    text: str


def did_you_mean(word: str, known: list[str]) -> str:
    """Name the closest known word, or all of them when none is close.

    >>> did_you_mean("corpsu", ["corpus", "cpt"])
    'Did you mean `corpus`?'
    >>> did_you_mean("x", ["corpus", "cpt"])
    'Available: corpus, cpt.'
    """
    if near := get_close_matches(word, known, n=1, cutoff=0.6):
        return f"Did you mean `{near[0]}`?"
    return f"Available: {', '.join(known)}." if known else "None is available."


def dotted(loc: tuple[int | str, ...]) -> str:
    """Write a place with dots and positions: `corpus.data[0].license`."""
    place = ""
    for part in loc:
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else str(part)
    return place


def report(faults: list[RecipeFault], name: str, lines: Lines) -> str:
    """Format all faults in the order of the file: a single one on one line, several on a line each."""
    worded = sorted({(_line(fault.place, lines), fault.place, fault.text) for fault in faults})
    lines_of_text = [f"line {line}, {place}: {text}" if line else f"{place}: {text}" for line, place, text in worded]
    if len(lines_of_text) == 1:
        return f"{name}, {lines_of_text[0]}"
    return f"{name} has {len(lines_of_text)} faults:\n" + "\n".join(f"  {text}" for text in lines_of_text)


def _line(place: str, lines: Lines) -> int:
    # A missing key has no line; the line of its block is reported.
    while place:
        if place in lines:
            return lines[place]
        place = place[: max(place.rfind("."), place.rfind("["), 0)]
    return 0


def schema_faults(invalid: ValidationError, model: type[BaseModel]) -> list[RecipeFault]:
    """Convert pydantic's errors to faults; a place is reported once, however many types pydantic tried there."""
    found: dict[str, RecipeFault] = {}
    for error in invalid.errors():
        place = dotted(own_place(error["loc"]))
        found.setdefault(place, RecipeFault(place, _word(error, model)))
    return list(found.values())


def own_place(loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Drop from a place the names that pydantic adds for the branches of a union: a recipe has no such keys."""
    return tuple(part for part in loc if isinstance(part, int) or part not in ("int", "str", "dict[str,int]", "[key]"))


_KINDS = {
    "string": "a word",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "date": "a date as 2017-12-31",
    "tuple": "a list",
    "dict": "a block of `key: value`",
    "model": "a block of `key: value`",
}

_BOUNDS = {
    "greater_than": "more than",
    "greater_than_equal": "at least",
    "less_than": "less than",
    "less_than_equal": "at most",
}


def _word(error: ErrorDetails, model: type[BaseModel]) -> str:
    kind, context, given = error["type"], error.get("ctx", {}), error["input"]
    if kind == "extra_forbidden":
        key = str(error["loc"][-1])
        return f"unknown key. {did_you_mean(key, _keys(model, error['loc'][:-1]))}"
    if kind == "missing":
        return "is missing."
    if kind == "literal_error":
        return f"{_shown(given)} is not one of {context['expected']}."
    if kind in _BOUNDS:
        return f"{_shown(given)} is out of range: it must be {_BOUNDS[kind]} {next(iter(context.values())):g}."
    if kind == "string_pattern_mismatch":
        return f"{_shown(given)} contains characters that the Hub does not allow. Use a-z, 0-9, `-`, `_` and `.`."
    if kind == "value_error":
        return f"{_shown(given)}: {context['error']}."
    wanted = next((words for start, words in _KINDS.items() if kind.startswith(start)), None)
    return f"{_shown(given)} is not {wanted}." if wanted else f"{_shown(given)}: {error['msg']}."


def _shown(value: Any) -> str:  # noqa: ANN401  any YAML value
    text = str(value)
    return f"`{text if len(text) <= 60 else text[:57] + '...'}`"


def _keys(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """List the keys that the schema knows at a place."""
    schema = model.model_json_schema()
    nodes: list[dict[str, Any]] = [schema]
    for part in loc:
        nodes = [inner for node in nodes for inner in _below(schema, node, part)]
    return [key for node in nodes for key in node.get("properties", {})]


def _below(schema: dict[str, Any], node: dict[str, Any], part: int | str) -> list[dict[str, Any]]:
    if isinstance(part, int):
        inner = node.get("items")
    else:
        inner = node.get("properties", {}).get(part) or node.get("additionalProperties")
    return _alternatives(schema, inner) if isinstance(inner, dict) else []


def _alternatives(schema: dict[str, Any], node: dict[str, Any]) -> list[dict[str, Any]]:
    """Follow `$ref` and list the branches of a union."""
    if "$ref" in node:
        return _alternatives(schema, schema["$defs"][node["$ref"].rsplit("/", 1)[-1]])
    if "anyOf" in node:
        return [one for inner in node["anyOf"] for one in _alternatives(schema, inner)]
    return [node]
