"""Keys that had another name before 0.1.0: a recipe that still uses one gets the new name, not just `unknown key`."""

import re
from collections.abc import Mapping
from typing import Any

from medllm.recipe.errors import RecipeFault
from medllm.recipe.yaml_reader import Lines

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
    found: list[RecipeFault] = []
    for key, value in tree.items():
        inside = f"{place}.{key}" if place else str(key)
        inner, faults = with_new_keys(value, inside)
        found += faults
        new_place = new_name(inside)
        if new_place is None:
            renamed[key] = inner
            continue
        new = new_place.rpartition(".")[2]
        text = f"this key is now `{new_place}`.{_new_value(new, value)}"
        found.append(RecipeFault("recipe.renamed-key", inside, text))
        if new not in tree:
            renamed[new] = _VALUES.get(new, {}).get(value, inner) if isinstance(value, str) else inner
    return renamed, found


def _new_value(key: str, value: Any) -> str:  # noqa: ANN401  any YAML value
    new = _VALUES.get(key, {}).get(value) if isinstance(value, str) else None
    return "" if new is None else f" Write `{key}: {str(new).lower()}`."
