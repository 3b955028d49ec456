"""Opens all sources of a recipe that are within reach: exams, texts, models and adapters."""

from collections.abc import Collection, Mapping
from pathlib import Path

from medllm.preflight.exams import check_exams
from medllm.preflight.findings import Findings
from medllm.preflight.models import check_models
from medllm.preflight.preferences import check_preferences
from medllm.preflight.texts import check_texts
from medllm.recipe import Recipe
from medllm.recipe.errors import RecipeFault
from medllm.recipe.reference import Stage


def inspect(
    recipe: Recipe,
    stages: Collection[Stage],
    sources: Mapping[str, Path],
    *,
    listed: Mapping[str, frozenset[str]] | None = None,
    thorough: bool = False,
) -> list[RecipeFault]:
    """Return every fault of what these stages read, in no particular order.

    `sources` are the folders within reach, by the names that the recipe gives them. `listed` has the names of all
    files of a model of the Hub whose weights are not pulled yet. `thorough` adds the audits that need up to a minute
    for a large exam: worked examples and past questions compared with the held-out exams.
    """
    findings = Findings()
    check_exams(recipe, stages, sources, findings, thorough=thorough)
    if "corpus" in stages and recipe.corpus:
        check_texts(recipe.corpus, sources, findings)
    if "preferences" in stages and recipe.preferences:
        check_preferences(recipe.preferences, sources, findings, thorough=thorough)
    check_models(recipe, stages, sources, listed or {}, findings)
    return findings.found
