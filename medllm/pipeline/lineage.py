"""The ancestors of an output, from recorded provenance, and the card and its facts that an output carries."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medllm.cards import render, template_exists
from medllm.exam.benchmarks import CATALOGUE
from medllm.hub import Artifact, Hub, Input, Provenance
from medllm.pipeline.facts import facts_of
from medllm.pipeline.gate import conflicts, license_of, link_of, terms_for
from medllm.pipeline.plan import BuildPlan, StagePlan
from medllm.pipeline.teachers import ancestors_of, teacher_facts, teachers_of
from medllm.recipe import Recipe
from medllm.recipe.base import STAGES, Stage, parse_reference
from medllm.recipe.dependencies import askings_of, instructions_of
from medllm.wording import format_duration

TRAININGS: tuple[Stage, ...] = ("cpt", "sft", "rpo", "rounds", "grpo")


def lineage(
    plan: BuildPlan,
    item: StagePlan,
    made: Mapping[Stage, Artifact],
    hub: Hub,
    own: Provenance | None = None,
    facts: Mapping[str, Any] = {},
) -> dict[str, Any]:
    """Plain values for the templates; `own` and `facts` are of the item itself, which may not be pushed yet."""
    way = ancestors_of(plan, item)
    sources = {source.reference: source for step in way for source in step.inputs if source.reference not in STAGES}
    base = sources.pop("base", None)
    exams = set(plan.recipe.exams) | set(plan.recipe.evaluate.benchmarks if plan.recipe.evaluate else ())
    exams |= {plan.recipe.rounds.exam} if plan.recipe.rounds else set()
    data = {name: source for name, source in sources.items() if name not in exams}
    card = _card(plan, base, hub) if base else None
    base_license = license_of(card) if card else None
    counted = _counted(made, hub, facts)
    data_licenses = {
        name: counted.get(name) or _stated(plan, name) or _license(plan, source, hub) for name, source in data.items()
    }
    declared = plan.recipe.publish.license
    terms = terms_for(declared, base_license, link_of(card, base.repo_id) if card and base else None)
    return {
        "base": {"name": plan.recipe.base, "repo_id": base.repo_id if base else None, "license": base_license},
        "data": [
            {"name": name, "license": data_licenses[name], **_place(source)} for name, source in sorted(data.items())
        ],
        "exams": [
            {"name": name, "license": _exam_license(plan, name, source, hub), **_place(source)}
            for name, source in sorted(sources.items())
            if name in exams
        ],
        "datasets": _datasets(data, made, way),
        "trainings": [_training(step, made) for step in way if step.stage in TRAININGS],
        "teachers": teacher_facts(plan.recipe, teachers_of(plan, item, made, hub)),
        "work": list(_work(way, item, made, hub, own)),
        **terms,
        "conflicts": conflicts((declared or base_license or "other").lower(), base_license, data_licenses),
    }


def _datasets(data: Mapping[str, Input], made: Mapping[Stage, Artifact], way: list[StagePlan]) -> list[str]:
    """The repositories of the Hub that the model learnt from, as its header lists them."""
    outside = [source.repo_id for source in data.values() if source.repo_id and source.kind != "model"]
    inside = [made[step.stage].repo_id for step in way if step.kind == "dataset" and step.stage in made]
    return sorted({*outside, *inside})


def _training(item: StagePlan, made: Mapping[Stage, Artifact]) -> dict[str, Any]:
    artifact = made.get(item.stage)
    return {
        "stage": item.stage,
        "repo_id": item.repo_id,
        "commit": artifact.revision if artifact else None,
        "settings": [{"name": name, "value": value} for name, value in _flat(item.digest_settings, "")],
    }


def _work(
    way: list[StagePlan], item: StagePlan, made: Mapping[Stage, Artifact], hub: Hub, own: Provenance | None
) -> Iterator[dict[str, str | None]]:
    """On what machine each training, and the item itself, was made and how long it took there."""
    for step in way:
        if step.stage not in (*TRAININGS, item.stage):
            continue
        artifact = made.get(step.stage)
        provenance = own if step.stage == item.stage and own else hub.provenance(artifact) if artifact else None
        if provenance and "on" in provenance.made:
            seconds = provenance.made.get("seconds")
            yield {
                "stage": step.stage,
                "on": provenance.made["on"],
                "time": None if seconds is None else format_duration(seconds),
            }


def _exam_license(plan: BuildPlan, name: str, source: Input, hub: Hub) -> str | None:
    """Find an exam's licence: in the catalogue for a known exam, else on the source's own card."""
    if name in CATALOGUE:
        return CATALOGUE[name].license
    own = plan.recipe.exams.get(name)
    return _license(plan, source, hub, own.source if own else None)


def _flat(values: Mapping[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name}.")
        elif value is not None and value not in ([], ""):
            yield f"{above}{name}", value


def _place(source: Input) -> dict[str, str | None]:
    return {"repo_id": source.repo_id, "commit": source.commit, "digest": source.digest}


def _card(plan: BuildPlan, source: Input, hub: Hub, name: str | None = None) -> Path | None:
    """Find the source's own card; `name` where the recipe calls the source by another name."""
    if source.repo_id and source.kind and source.commit:
        return hub.file(Artifact(source.repo_id, source.kind, source.commit), "README.md")
    written = parse_reference(name or ((plan.recipe.base or "") if source.reference == "base" else source.reference))
    return plan.resolver.folder(written) / "README.md" if written.where == "folder" else None


def _license(plan: BuildPlan, source: Input, hub: Hub, name: str | None = None) -> str | None:
    """What the source's own card states."""
    card = _card(plan, source, hub, name)
    return license_of(card) if card else None


def _counted(made: Mapping[Stage, Artifact], hub: Hub, own: Mapping[str, Any]) -> dict[str, str]:
    """The licences of the rows of each source, as corpus and trainings have read them: more than a card states."""
    names: dict[str, set[str]] = {}
    read = [own, *(facts_of(hub, made[stage]) for stage in ("corpus", *TRAININGS) if stage in made)]
    for part in (part for facts in read for part in (facts.get("mix") or facts).get("sources", [])):
        names.setdefault(part["source"], set()).add(part["license"])
    return {source: ", ".join(sorted(licenses)) for source, licenses in names.items()}


def _stated(plan: BuildPlan, name: str) -> str | None:
    """What the recipe itself states of a source's licence."""
    recipe = plan.recipe
    stages = (
        recipe.corpus,
        *(settings for _, settings in askings_of(recipe)),
        *(block for _, block in instructions_of(recipe)),
    )
    blocks = [source for stage in stages if stage for source in stage.data]
    return next((block.license.lower() for block in blocks if block.source == name and block.license), None)


TEMPLATES: dict[Stage, str] = {
    "corpus": "dataset_cards/corpus.md",
    "cpt": "model_card/adapter.md",
    "teach": "dataset_cards/teach.md",
    "sft": "model_card/adapter.md",
    "preferences": "dataset_cards/preferences.md",
    "rpo": "model_card/adapter.md",
    "rounds": "model_card/adapter.md",
    "grpo": "model_card/adapter.md",
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
        lineage=lineage(plan, item, made, hub, provenance, facts),
        results=results,
    )


def recipe_facts(recipe: Recipe) -> dict[str, Any]:
    """List the recipe's values that a card may contain: plain values only."""
    values = recipe.model_dump(mode="json", include={"name", "namespace", "base", "cutoff"})
    return {**values, "license": recipe.publish.license, "gated": recipe.publish.gated}
