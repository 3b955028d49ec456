"""Where a stage is made: here, as a Job on the Hub, on a Slurm cluster, or by AutoTrain Advanced."""

from importlib import import_module

from medllm.errors import LaunchError
from medllm.hub import Hub
from medllm.pipeline import Launcher, Plan

PLACES = ("here", "jobs", "slurm", "autotrain")


def launcher(on: str) -> Launcher:
    """The launcher of that name."""
    if on not in PLACES:
        raise LaunchError(f"--on {on}: there is no such place. There is: {', '.join(PLACES)}.")
    found: Launcher = import_module(f"medllm.launch.{on}").launch
    return found


def refuse_unfit(on: str, plan: Plan, hub: Hub) -> None:
    """Raise for a stage that could not be made there: before the first one is made, not after days."""
    if on == "jobs" and plan.missing and hub.token:
        hub.account().check_jobs(hub.name, plan.recipe.namespace)
    for item in plan.missing:
        if on == "autotrain":
            import_module("medllm.launch.autotrain").refuse(item)
        elif on == "jobs":
            jobs = import_module("medllm.launch.jobs")
            jobs.refuse_local(item, hub)
            jobs.carried(item, plan, hub)
