"""Publication of a finished build: cards that carry the results, the gate, visibility, and the collection."""

from collections.abc import Mapping
from typing import Any, Literal

from huggingface_hub import CommitOperationAdd, HfApi

from medllm.errors import HubError
from medllm.hub import Artifact, Hub
from medllm.hub.push import restore_on_main
from medllm.pipeline.build import BuildContext
from medllm.pipeline.facts import facts_of
from medllm.pipeline.gate import failed_gate_conditions
from medllm.pipeline.lineage import card_of
from medllm.pipeline.plan import BuildPlan, StagePlan
from medllm.pipeline.results import EvaluationResults, results_of
from medllm.pipeline.teachers import teacher_facts, teachers_of
from medllm.recipe.base import Stage

Made = Mapping[Stage, Artifact]


def publish(plan: BuildPlan, made: Made, bench: BuildContext) -> None:
    """Bring cards and settings in line with the recipe; what is so already is not touched."""
    for stage, artifact in made.items():
        if restore_on_main(bench.hub, artifact):
            bench.say(f"{stage}: put back on main, where another version had been pushed since")
    results = results_of(plan, made, bench.hub, bench.work)
    for item in plan.items:
        if item.stage in made and (item.kind == "model" or teachers_of(plan, item, made, bench.hub)):
            _refresh_card(plan, item, made, results, bench)
    _settings(plan, made, results, bench)
    if plan.recipe.publish.collection:
        _collect(plan, made, plan.recipe.publish.collection, bench)


def _refresh_card(
    plan: BuildPlan, item: StagePlan, made: Made, results: EvaluationResults | None, bench: BuildContext
) -> None:
    """Write the results into a model's card on main, where main still is what was made."""
    hub = bench.hub
    head = hub.state_at(item.repo_id, item.kind)
    if head is None or head.provenance is None or head.provenance.digest != item.digest:
        return
    above = {stage: artifact for stage, artifact in made.items() if stage != item.stage}
    result = results.of(item.stage, plan) if results else None
    facts = facts_of(hub, head.artifact)
    card = card_of(plan, item, head.provenance, facts, above, hub=hub, results=result)
    files = {"README.md": card} if card else {}
    if result and result["eval_results"]:
        files[".eval_results/medllm.yaml"] = result["eval_results"]
    changed = {name: text for name, text in files.items() if _text(hub, head.artifact, name) != text}
    if not changed:
        return
    added = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=text.encode()) for name, text in changed.items()]
    hub.call(
        item.repo_id,
        lambda api: api.create_commit(
            item.repo_id,
            added,
            repo_type=item.kind,
            commit_message="The card carries the results",
            parent_commit=head.artifact.revision,
        ),
    )
    bench.say(f"{item.stage}: its card is up to date")


def _text(hub: Hub, artifact: Artifact, name: str) -> str | None:
    path = hub.file(artifact, name)
    return path.read_text(encoding="utf-8") if path else None


def _settings(plan: BuildPlan, made: Made, results: EvaluationResults | None, bench: BuildContext) -> None:
    """Make it private, gated or public as the recipe asks; public only through the gate."""
    wanted = plan.recipe.publish
    if not wanted.private:
        facts: dict[str, dict[str, Any]] = {stage: facts_of(bench.hub, artifact) for stage, artifact in made.items()}
        named = [teacher for item in plan.items for teacher in teachers_of(plan, item, made, bench.hub)]
        warnings = [teacher["warning"] for teacher in teacher_facts(plan.recipe, named) if teacher["warning"]]
        worst = results.worst_delta if results else None
        closed = failed_gate_conditions(plan.recipe, facts, worst, list(dict.fromkeys(warnings)))
        if closed:
            listed = "".join(f"\n  {line}" for line in closed)
            raise HubError("stage.gate-closed", f"Everything is pushed, but stays private: the gate is closed.{listed}")
    gated: Literal["auto", "manual", False] = False if wanted.gated == "no" else wanted.gated
    for artifact in made.values():
        info = bench.hub.call(artifact.repo_id, lambda api, a=artifact: api.repo_info(a.repo_id, repo_type=a.kind))  # type: ignore[misc]
        changes: dict[str, Any] = {}
        if bool(info.private) != wanted.private:
            changes["private"] = wanted.private
        if artifact.kind != "space" and (getattr(info, "gated", False) or False) != gated:
            changes["gated"] = gated
        if changes:
            _change(bench.hub, artifact, changes)
            seen = "private" if wanted.private else "public"
            bench.say(f"{artifact.repo_id}: is {seen}" + (f" and gated ({wanted.gated})" if gated else ""))


def _change(hub: Hub, artifact: Artifact, changes: dict[str, Any]) -> None:
    hub.call(
        artifact.repo_id,
        lambda api: api.update_repo_settings(artifact.repo_id, repo_type=artifact.kind, **changes),
    )


def _collect(plan: BuildPlan, made: Made, title: str, bench: BuildContext) -> None:
    """Gather all of it in one collection; what is in it already stays."""

    def gather(api: HfApi) -> int:
        there = api.create_collection(
            title, namespace=plan.recipe.owner, private=plan.recipe.publish.private, exists_ok=True
        )
        if there.private != plan.recipe.publish.private:
            api.update_collection_metadata(there.slug, private=plan.recipe.publish.private)
        known = {(item.item_id, item.item_type) for item in api.get_collection(there.slug).items}
        missing = [artifact for artifact in made.values() if (artifact.repo_id, artifact.kind) not in known]
        for artifact in missing:
            api.add_collection_item(there.slug, artifact.repo_id, artifact.kind, exists_ok=True)
        return len(missing)

    added = bench.hub.call(f"collection `{title}`", gather)
    if added:
        bench.say(f"collection {title}: {added} added")
