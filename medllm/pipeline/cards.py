"""Which card a stage's output carries, and which facts the card may contain."""

from collections.abc import Mapping
from typing import Any

from medllm.cards import render, template_exists
from medllm.hub import Artifact, Hub, Provenance
from medllm.pipeline.facts import facts_of
from medllm.pipeline.lineage import lineage
from medllm.pipeline.plan import BuildPlan, StagePlan
from medllm.recipe import Recipe
from medllm.recipe.reference import Stage

TEMPLATES: dict[Stage, str] = {
    "corpus": "dataset_cards/corpus.md",
    "cpt": "model_card/adapter.md",
    "preferences": "dataset_cards/preferences.md",
    "rpo": "model_card/adapter.md",
    "merge": "model_card/merged.md",
    "evaluate": "dataset_cards/results.md",
    "space": "model_card/space.md",
}


def card_of(
    plan: BuildPlan,
    item: StagePlan,
    provenance: Provenance,
    facts: Mapping[str, Any],
    made: Mapping[Stage, Artifact],
    *,
    hub: Hub,
    results: Mapping[str, Any] | None = None,
) -> str | None:
    """Write a stage's card, or None where there is no template for it and the stage's own README stays."""
    template = TEMPLATES.get(item.stage)
    if template is None or not template_exists(template):
        return None
    return render(
        template,
        facts=facts,
        provenance=provenance,
        repo_id=item.repo_id,
        recipe=recipe_facts(plan.recipe),
        upstream={stage: facts_of(hub, artifact) for stage, artifact in made.items()},
        lineage=lineage(plan, item, made, hub, provenance),
        results=results,
    )


def recipe_facts(recipe: Recipe) -> dict[str, Any]:
    """List the recipe's values that a card may contain: plain values only."""
    values = recipe.model_dump(mode="json", include={"name", "namespace", "base", "cutoff"})
    return {**values, "license": recipe.publish.license, "gated": recipe.publish.gated}
