"""The recipe: one YAML file that is the whole pipeline, read with every fault named at once."""

from medllm.recipe.dependencies import Use, local_sources, repo_id, stages_of, uses
from medllm.recipe.read import ablated, parse_override, read_recipe, with_overrides
from medllm.recipe.settings import Recipe, settings_for_digest

__all__ = [
    "Recipe",
    "Use",
    "ablated",
    "local_sources",
    "parse_override",
    "read_recipe",
    "repo_id",
    "settings_for_digest",
    "stages_of",
    "uses",
    "with_overrides",
]
