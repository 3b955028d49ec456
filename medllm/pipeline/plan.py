"""The build plan: what exists, what is left to build, and for everything rebuilt the value that changed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medllm.errors import RecipeError
from medllm.hub import Hub, Input, Kind, RepoState, digest_of
from medllm.hub.push import writable_head
from medllm.pipeline.content import FORGOTTEN, Resolver, stage_input, with_named_bases
from medllm.recipe import Recipe, repo_id, settings_for_digest, stages_of, uses
from medllm.recipe.base import KINDS, STAGES, Settings, Stage
from medllm.recipe.errors import did_you_mean
from medllm.wording import describe_value

MOST_REASONS = 4
"""Changes listed one by one; more of them are counted."""


@dataclass(frozen=True)
class StagePlan:
    """One stage of the plan: what it would be, and whether that exists."""

    stage: Stage
    settings: Settings
    repo_id: str
    kind: Kind
    inputs: tuple[Input, ...]
    """Its sources; those that are still to be made have no commit yet."""
    digest: str
    standing: RepoState | None
    """The output that exists under this digest; None when it is to be built."""
    head: RepoState | None
    """What the repository holds now, the parent of a push."""
    why: str
    """Why it is built; empty when it exists."""
    only_if: tuple[str, ...] = ()
    """The stages above that are rebuilt and alone differ: with equal content of theirs, this stage stays as it is."""

    @property
    def identity(self) -> str:
        """What enters the digests of the stages below; of what is still to be made, as if its content were new."""
        known = self.standing.provenance if self.standing else None
        return known.identity if known else self.digest

    @property
    def digest_settings(self) -> dict[str, Any]:
        """The settings that decide the result, as plain values."""
        return settings_for_digest(self.settings)

    @property
    def remade(self) -> bool:
        """Whether another outcome of this stage exists, which costs something to replace."""
        return self.standing is None and self.head is not None and self.head.provenance is not None


@dataclass(frozen=True)
class BuildPlan:
    """The stages in order, and the resolver that pulls their sources at the commits the plan was made for."""

    recipe: Recipe
    items: tuple[StagePlan, ...]
    resolver: Resolver
    wanted: tuple[str, ...] = ()
    """The stages that were asked for by name; empty for all."""
    shared: "BuildPlan | None" = field(default=None, repr=False)
    """The plan of the recipe that this one is an ablation of."""

    def renewed(self, hub: Hub) -> "BuildPlan":
        """Look at the Hub again; the sources stay at their commits."""
        return make_plan(self.recipe, hub, self.wanted, self.shared, self.resolver)

    @property
    def missing(self) -> tuple[StagePlan, ...]:
        """What is to be made."""
        return tuple(item for item in self.items if item.standing is None)

    def item(self, stage: str) -> StagePlan | None:
        """The item of a stage, or None when the plan does not reach it."""
        return next((item for item in self.items if item.stage == stage), None)

    def pull_standing_sources(self, stage: Stage) -> dict[str, Path]:
        """Pull the sources of a stage, as far as they exist, to local folders, keyed as the recipe writes them."""
        above = {}
        for item in self.items:
            commit = item.standing.artifact.revision if item.standing else None
            above[item.stage] = stage_input(item.stage, item.repo_id, item.identity, commit)
        return self.resolver.pulled(stage, self.resolver.inputs(stage, above), standing_only=True)


def make_plan(
    recipe: Recipe,
    hub: Hub,
    wanted: tuple[str, ...] = (),
    shared: BuildPlan | None = None,
    resolver: Resolver | None = None,
) -> BuildPlan:
    """Look at the Hub and list what is left to do; with `wanted`, only for these stages and what they need.

    `shared` is the plan of the recipe that this one is an ablation of: equal stages are that plan's, made once;
    others go to repositories of the ablation's own name. A `resolver` keeps the commits that it has resolved.

    Raises:
        RecipeError: The recipe has no namespace, or a stage that is wanted does not exist.
    """
    if recipe.owner and recipe.base is None and resolver is None:
        recipe = with_named_bases(recipe, hub)
    resolver = resolver or (shared.resolver.for_recipe(recipe) if shared else Resolver(recipe, hub))
    items: list[StagePlan] = []
    above: dict[Stage, Input] = {}
    for stage in needed_stages(recipe, wanted):
        inputs = resolver.inputs(stage, above)
        item = _item(recipe, stage, inputs, hub, shared, items)
        items.append(item)
        commit = item.standing.artifact.revision if item.standing else None
        above[stage] = stage_input(stage, item.repo_id, item.identity, commit)
    return BuildPlan(recipe, tuple(items), resolver, wanted, shared)


def _item(
    recipe: Recipe, stage: Stage, inputs: tuple[Input, ...], hub: Hub, shared: BuildPlan | None, items: list[StagePlan]
) -> StagePlan:
    settings: Settings = getattr(recipe, stage)
    digest = digest_of(stage, settings_for_digest(settings), inputs)
    twin = shared.item(stage) if shared else None
    if twin and twin.digest == digest:
        return twin
    repo, kind = repo_id(recipe, stage), KINDS[stage]
    standing = hub.find(repo, kind, digest)
    head = None if standing else writable_head(hub, repo, kind, stage)
    if standing:
        return StagePlan(stage, settings, repo, kind, inputs, digest, standing, head, "")
    why, only_if = _why(head, settings_for_digest(settings), inputs, items)
    return StagePlan(stage, settings, repo, kind, inputs, digest, standing, head, why, only_if)


def needed_stages(recipe: Recipe, wanted: tuple[str, ...]) -> tuple[Stage, ...]:
    """List the wanted stages and everything they are built from, in order; all of the recipe's when none is wanted."""
    there = stages_of(recipe)
    for name in wanted:
        if name not in there:
            if name not in STAGES:
                text = f"{name}: unknown stage. {did_you_mean(name, list(there))}"
                raise RecipeError("command.unknown-stage", text)
            text = f"{name}: this recipe has no stage `{name}`. It has: {', '.join(there) or 'no stage'}."
            raise RecipeError("recipe.no-such-stage", text)
    if not wanted:
        return there
    needed: set[str] = set(wanted)
    for stage in reversed(there):
        if stage in needed:
            needed |= {use.source for use in uses(recipe, stage)}
    return tuple(stage for stage in there if stage in needed)


def _why(
    head: RepoState | None, settings: Mapping[str, Any], inputs: tuple[Input, ...], items: list[StagePlan]
) -> tuple[str, tuple[str, ...]]:
    """Describe how the existing output differs from what is asked for; also the stages above that alone differ."""
    before = head.provenance if head else None
    if before is None:
        return "not made yet", ()
    inside = dict(_changed_inputs(before.inputs, inputs, items))
    outside = list(_changed_settings(before.settings, settings, ""))
    changed = [*outside, *inside.values()]
    shown, rest = changed[:MOST_REASONS], len(changed) - MOST_REASONS
    why = "; ".join([*shown, *([f"and {rest} more changes"] if rest > 0 else [])]) or "its output is untagged"
    remade = {item.stage for item in items if item.standing is None}
    return why, tuple(inside) if inside and not outside and set(inside) <= remade else ()


def describe_change(head: RepoState | None, settings: Mapping[str, Any], inputs: tuple[Input, ...]) -> str:
    """Describe how an existing output differs from what is asked for, where no stage above can have changed it."""
    return _why(head, settings, inputs, [])[0]


def _changed_settings(before: object, after: object, name: str) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted({*before, *after}):
            yield from _changed_settings(before.get(key), after.get(key), f"{name}.{key}" if name else key)
    elif before != after and isinstance(after, dict) and before is None:
        yield f"{name} is new"
    elif before != after and isinstance(before, dict) and after is None:
        yield f"{name} is gone"
    elif before != after and any(
        isinstance(row, dict) for side in (before, after) if isinstance(side, list) for row in side
    ):
        yield f"{name} has changed"
    elif before != after:
        yield f"{name} {describe_value(before)} -> {describe_value(after)}"


def _changed_inputs(
    before: tuple[Input, ...], after: tuple[Input, ...], items: list[StagePlan]
) -> Iterator[tuple[str, str]]:
    """Yield the name of each changed source, and its change in words."""
    old = {source.reference: source for source in before}
    remade = {item.stage for item in items if item.standing is None}
    for source in after:
        was = old.get(source.reference)
        if was is not None and was.identity == source.identity:
            continue
        if source.reference == FORGOTTEN:
            yield FORGOTTEN, "rows were withdrawn"
            continue
        if was is None:
            continue
        if source.reference in STAGES:
            yield source.reference, f"{source.reference} is {'remade' if source.reference in remade else 'another one'}"
        elif source.commit and was.commit:
            yield source.reference, f"{source.reference} moved from {was.commit[:7]} to {source.commit[:7]}"
        else:
            yield source.reference, f"{source.reference} has changed"
