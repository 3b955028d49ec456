"""Faults of a recipe, each with its code, place and text: those that the schema finds, and keys of before 0.1.0."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from medllm.errors import RecipeError
from medllm.recipe.base import HUB_NAME

Lines = dict[str, int]
"""Dotted place to line number."""


@dataclass(frozen=True)
class RecipeFault:
    """One error of a recipe: its code, its place, and what is wrong and what to do."""

    code: str
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


def error_of(faults: list[RecipeFault], name: str, lines: Lines) -> RecipeError:
    """Build the error of all faults in the order of the file: a single one gives its code, several a line each."""
    unique = sorted(set(faults), key=lambda fault: (line_of(fault.place, lines), fault.place, fault.text))
    if len(unique) == 1:
        (fault,) = unique
        return RecipeError(fault.code, f"{name}, {_at_line(fault, lines)}")
    listed = "".join(f"  {_at_line(fault, lines)} [{fault.code}]\n" for fault in unique)
    return RecipeError("recipe.faults", f"{name} has {len(unique)} faults:\n{listed}Correct each line.")


def _at_line(fault: RecipeFault, lines: Lines) -> str:
    line = line_of(fault.place, lines)
    return f"line {line}, {fault.place}: {fault.text}" if line else f"{fault.place}: {fault.text}"


def line_of(place: str, lines: Lines) -> int:
    """Find the line of a key; of a missing one, the line of its block, or 0."""
    while place:
        if place in lines:
            return lines[place]
        place = place[: max(place.rfind("."), place.rfind("["), 0)]
    return 0


def schema_faults(invalid: ValidationError, model: type[BaseModel]) -> list[RecipeFault]:
    """Convert pydantic's errors to faults; a place is reported once, however many types pydantic tried there."""
    faults: dict[str, RecipeFault] = {}
    places = [dotted(own_place(error["loc"])) for error in invalid.errors()]
    for error, place in zip(invalid.errors(), places, strict=True):
        # Of a block that could also be a word, the faults inside count.
        inside = error["loc"][-1] in BRANCHES and any(other.startswith(f"{place}.") for other in places)
        if not inside:
            faults.setdefault(place, _schema_fault(error, model))
    return list(faults.values())


BRANCHES = ("int", "str", "dict[str,int]", "[key]", "ApiModel")
"""Names that pydantic adds to a place for the branches of a union: a recipe has no such keys."""


def own_place(loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Drop from a place the names of a union's branches."""
    return tuple(part for part in loc if isinstance(part, int) or part not in BRANCHES)


SECRETS = ("api", "engine", "key")
"""Keys whose values are never shown: a key may be written there by mistake."""

_KINDS = {
    "finite": "a finite number",
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


def _schema_fault(error: ErrorDetails, model: type[BaseModel]) -> RecipeFault:
    kind, context = error["type"], error.get("ctx", {})
    given = "this value" if error["loc"][-1] in SECRETS else _shown(error["input"])
    place = dotted(own_place(error["loc"]))
    wanted = next((words for start, words in _KINDS.items() if kind.startswith(start)), None)
    if kind == "extra_forbidden" and error["loc"][-1] == "target_parameters":
        text = (
            "adapters on fused experts can be trained by PEFT, but neither merged nor read again here: their factors "
        )
        text += "are those of all experts in one. Remove this key, and name linear layers in `target_modules`."
        return RecipeFault("recipe.target-parameters", place, text)
    if kind == "extra_forbidden":
        near = did_you_mean(str(error["loc"][-1]), _keys(model, error["loc"][:-1]))
        return RecipeFault("recipe.unknown-key", place, f"this key is unknown. {near}")
    if kind == "missing":
        return RecipeFault("recipe.missing-key", place, "is missing. Add it.")
    if kind == "literal_error":
        return RecipeFault("recipe.unknown-value", place, f"{given} is not one of {context['expected']}.")
    if kind in _BOUNDS:
        bound = f"{_BOUNDS[kind]} {next(iter(context.values())):g}"
        return RecipeFault("recipe.out-of-range", place, f"{given} is out of range: it must be {bound}.")
    if kind == "string_pattern_mismatch" and context["pattern"] == HUB_NAME:
        text = f"{given} contains characters that the Hub does not allow. Use a-z, 0-9, `-`, `_` and `.`."
        return RecipeFault("recipe.not-a-hub-name", place, text)
    if kind == "string_pattern_mismatch":
        text = f"{given} does not have the form of this key, which is the pattern `{context['pattern']}`."
        return RecipeFault("recipe.wrong-form", place, text)
    if kind == "sbatch_option":
        text = f"`{context['option']}` is not an option of sbatch. Write it as `--account=med`."
        return RecipeFault("recipe.not-an-sbatch-option", place, text)
    if kind == "value_error":
        return RecipeFault("recipe.wrong-type", place, f"{given} has the wrong type: {context['error']}.")
    if wanted:
        return RecipeFault("recipe.wrong-type", place, f"{given} is not {wanted}.")
    return RecipeFault("recipe.wrong-value", place, f"{given} is not a value of this key: {error['msg']}.")


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
        return [alternative for inner in node["anyOf"] for alternative in _alternatives(schema, inner)]
    return [node]


_TRAINING = {
    "attention": "attn_implementation",
    "batch_size": "total_batch_size",
    "epochs": "num_train_epochs",
    "optimizer": "optim",
    "per_device_batch_size": "per_device_train_batch_size",
    "schedule": "lr_scheduler_type",
    "trackers": "report_to",
    "warmup": "warmup_ratio",
}

_ANSWERING = {"at_once": "num_concurrent", "processes": "num_processes"}

_LICENSE = {"licence": "license"}

RENAMED: Mapping[str, Mapping[str, str]] = {
    "cpt": _TRAINING,
    "rpo": {**_TRAINING, "shots": "keep_exemplars"},
    "publish": _LICENSE,
    "corpus": {
        "answered": "pii_reviewed",
        "japanese": "min_japanese_share",
        "leak_drop": "contamination_drop",
        "leak_review": "contamination_review",
        "licences": "allowed_licenses",
        "repetition": "max_repetition",
        "reviewed": "leaks_reviewed",
        "shortest": "min_chars",
    },
    "corpus.data": _LICENSE,
    "corpus.data.columns": _LICENSE,
    "corpus.replay": _LICENSE,
    "corpus.replay.columns": _LICENSE,
    "preferences": {**_ANSWERING, "reviewed": "leaks_reviewed", "similar": "max_similarity"},
    "preferences.data": _LICENSE,
    "preferences.data.columns": _LICENSE,
    "preferences.votes": _LICENSE,
    "preferences.votes.columns": _LICENSE,
    "merge": {"certify": "parity_questions"},
    "evaluate": _ANSWERING,
    "gate": {"largest_drop": "max_drop"},
}
"""Old key to new key, by the block that holds it."""

_POSITION = re.compile(r"\[\d+\]")

_VALUES: Mapping[str, Mapping[Any, Any]] = {
    "keep_exemplars": {"keep": True, "drop": False},
    "optim": {"adamw": "adamw_torch"},
}
"""Old value to new value, by new key, where the value changed with the name."""


def new_name(key: str) -> str | None:
    """Give the current name of a dotted key; none for a key that was not renamed.

    >>> new_name("cpt.epochs"), new_name("cpt.num_train_epochs")
    ('cpt.num_train_epochs', None)
    """
    block, _, last = key.rpartition(".")
    new = RENAMED.get(_POSITION.sub("", block), {}).get(last)
    return f"{block}.{new}" if new else None


def with_new_places(lines: Lines) -> Lines:
    """Give the value of a renamed key the line of its old key, so that a fault in the value names that line."""
    return {new: line for place, line in lines.items() if (new := new_name(place))} | lines


def with_new_keys(tree: Any, place: str = "") -> tuple[Any, list[RecipeFault]]:  # noqa: ANN401  any YAML value
    """Rename the old keys of a recipe's tree and report each one, so that its value is checked in the same reading.

    Args:
        tree: The values as they were read; returned unchanged where no key is old.
        place: Where the tree is in the recipe, as `corpus.data[0]`.
    """
    if isinstance(tree, list):
        pairs = [with_new_keys(value, f"{place}[{index}]") for index, value in enumerate(tree)]
        return [value for value, _ in pairs], [fault for _, faults in pairs for fault in faults]
    if not isinstance(tree, dict):
        return tree, []
    renamed: dict[Any, Any] = {}
    all_faults: list[RecipeFault] = []
    for key, value in tree.items():
        inside = f"{place}.{key}" if place else str(key)
        inner, faults = with_new_keys(value, inside)
        all_faults += faults
        new_place = new_name(inside)
        if new_place is None:
            renamed[key] = inner
            continue
        new = new_place.rpartition(".")[2]
        text = f"this key is now `{new_place}`.{_new_value(new, value)}"
        all_faults.append(RecipeFault("recipe.renamed-key", inside, text))
        if new not in tree:
            renamed[new] = _VALUES.get(new, {}).get(value, inner) if isinstance(value, str) else inner
    return renamed, all_faults


def _new_value(key: str, value: Any) -> str:  # noqa: ANN401  any YAML value
    new = _VALUES.get(key, {}).get(value) if isinstance(value, str) else None
    return "" if new is None else f" Write `{key}: {str(new).lower()}`."
