"""Bases, models and adapters that a recipe names: whether each can be loaded, by the function that loading uses."""

from collections.abc import Collection, Mapping
from pathlib import Path

from medllm.preflight.findings import Findings
from medllm.recipe import Recipe, uses
from medllm.recipe.reference import Stage, parse_reference
from medllm.weights.adapter import is_adapter
from medllm.weights.loadable import adapter_errors, model_errors


def check_models(
    recipe: Recipe,
    stages: Collection[Stage],
    sources: Mapping[str, Path],
    listed: Mapping[str, frozenset[str]],
    findings: Findings,
) -> None:
    """Check each model once, at the first place that names it."""
    base = sources.get("base")
    seen: set[Path] = set()
    for stage in stages:
        for use in sorted(uses(recipe, stage), key=lambda one: one.place != "base"):
            folder = sources.get(use.source)
            if use.wanted != "model" or use.only or folder is None or folder in seen:
                continue
            seen.add(folder)
            adapter = is_adapter(folder) and parse_reference(use.source).where != "base"
            here = base if base is not None and use.source not in listed and "base" not in listed else None
            errors = adapter_errors(folder, here) if adapter else model_errors(folder, listed.get(use.source))
            for error in errors:
                findings.add(use.place, error)
