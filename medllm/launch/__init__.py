"""Launchers: make a stage here, as a Job on the Hub, on a Slurm cluster, or by AutoTrain Advanced."""

from importlib import import_module

from medllm.errors import LaunchError
from medllm.hub import Artifact, Hub
from medllm.pipeline import BuildPlan, Launcher
from medllm.recipe import uses
from medllm.recipe.base import parse_reference
from medllm.recipe.hardware import refuse_unsupported
from medllm.recipe.servers import takes_any_type

PLACES = ("local", "jobs", "slurm", "autotrain")


def launcher(on: str) -> Launcher:
    """Return the launcher of that name."""
    if on not in PLACES:
        raise LaunchError("launch.unknown-place", f"--on {on}: there is no such place. There is: {', '.join(PLACES)}.")
    launch: Launcher = import_module(f"medllm.launch.{on}").launch
    return launch


def refuse_unfit(on: str, plan: BuildPlan, hub: Hub) -> None:
    """Raise LaunchError for a stage that cannot be made there: before the first one is made, not after days."""
    _refuse_base(plan, hub)
    if on == "jobs" and plan.missing and hub.token:
        hub.account().check_jobs(hub.name, plan.recipe.owner)
    for item in plan.missing:
        if on == "autotrain":
            import_module("medllm.launch.autotrain").refuse(item)
        elif on == "jobs":
            jobs = import_module("medllm.launch.jobs")
            jobs.refuse_local(item, hub)
            jobs.carried(item, plan, hub)


def _refuse_base(plan: BuildPlan, hub: Hub) -> None:
    """Raise LaunchError for a base of a type that no stage can load; read only its config.json."""
    reference = parse_reference(plan.recipe.base or "")
    loading = [
        item
        for item in plan.missing
        if any(use.place == "base" for use in uses(plan.recipe, item.stage)) and not takes_any_type(item.settings)
    ]
    if not loading:
        return
    if reference.where == "folder":
        folder = plan.recipe.folder / reference.text
    else:
        base = next((source for item in loading for source in item.inputs if source.reference == "base"), None)
        if base is None or base.repo_id is None or base.commit is None:
            return
        folder = hub.pull(Artifact(base.repo_id, "model", base.commit), only=("config.json",))
    if (folder / "config.json").is_file():
        refuse_unsupported(folder / "config.json")
