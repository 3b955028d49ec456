"""Bases, models and adapters that a recipe names: whether each can be loaded, by the function that loading uses."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path

from medllm.preflight.findings import Findings
from medllm.recipe import Recipe, uses
from medllm.recipe.reference import Stage, parse_reference
from medllm.recipe.servers import takes_any_type
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
    loading = defaultdict(list)
    for stage in stages:
        for use in uses(recipe, stage):
            loading[use.source].append(stage)
    for stage in stages:
        for use in sorted(uses(recipe, stage), key=lambda one: one.place != "base"):
            folder = sources.get(use.source)
            if use.wanted != "model" or use.only or folder is None or folder in seen:
                continue
            seen.add(folder)
            adapter = is_adapter(folder) and parse_reference(use.source).where != "base"
            here = base if base is not None and use.source not in listed and "base" not in listed else None
            if adapter:
                errors = adapter_errors(folder, here)
            else:
                any_type = all(takes_any_type(getattr(recipe, one)) for one in loading[use.source])
                errors = model_errors(folder, listed.get(use.source), any_type=any_type)
            for error in errors:
                findings.add(use.place, error)
