"""Build what is missing, in order, and report what is done and why."""

from collections.abc import Callable
from typing import Protocol

from medllm.errors import HubError
from medllm.hub import Artifact
from medllm.hub.push import tag_output
from medllm.pipeline.build import BuildContext
from medllm.pipeline.plan import BuildPlan, StagePlan
from medllm.pipeline.space_settings import check_secrets, configure_space
from medllm.recipe.reference import Stage


class Launcher(Protocol):
    """Gets one stage made, wherever; the tag on the Hub is the result."""

    def __call__(self, plan: BuildPlan, item: StagePlan, made: dict[Stage, Artifact], bench: BuildContext) -> None:
        """Return when the stage's output is on the Hub, or raise."""


def run(
    plan: BuildPlan, bench: BuildContext, launch: Launcher, asked: Callable[[BuildPlan], None]
) -> dict[Stage, Artifact]:
    """Build what the plan lists as missing; `asked` shows the plan and raises when people do not want it."""
    asked(plan)
    if plan.missing:
        bench.hub.check_writable(plan.recipe.namespace, [item.repo_id for item in plan.missing])
    if any(item.stage == "space" for item in plan.missing):
        check_secrets(plan.recipe)
    made: dict[Stage, Artifact] = {}
    for item in plan.items:
        standing = _standing(item, bench)
        made[item.stage] = standing or _made(plan, item, made, bench, launch)
        if item.stage == "space":
            configure_space(bench.hub, item.repo_id, plan.recipe, made, bench.say, fresh=standing is None)
    return made


def _standing(item: StagePlan, bench: BuildContext) -> Artifact | None:
    if item.standing:
        return item.standing.artifact
    head = item.head
    if head and head.provenance and head.provenance.digest == item.digest:
        bench.say(f"{item.stage}: pushed by an earlier run that did not get to tag it")
        return tag_output(bench.hub, head.artifact, head.provenance)
    return None


def _made(
    plan: BuildPlan, item: StagePlan, made: dict[Stage, Artifact], bench: BuildContext, launch: Launcher
) -> Artifact:
    bench.say(f"{item.stage}: rebuilding, because {item.why}" if item.remade else f"{item.stage}: {item.why}")
    launch(plan, item, made, bench)
    found = bench.hub.find(item.repo_id, item.kind, item.digest)
    if found is None:
        raise HubError(
            "stage.no-output",
            f"{item.repo_id}: the stage finished, but its output is not on the Hub under its digest. Run again.",
        )
    bench.say(f"{item.stage}: exists as {found.artifact.repo_id}@{found.artifact.revision[:7]}")
    return found.artifact
