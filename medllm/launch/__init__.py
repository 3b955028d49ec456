"""Where a stage is made: here, as a Job on the Hub, on a Slurm cluster, or by AutoTrain Advanced."""

from importlib import import_module

from medllm.errors import LaunchError
from medllm.pipeline import Launcher

PLACES = ("here", "jobs", "slurm", "autotrain")


def launcher(on: str) -> Launcher:
    """The launcher of that name."""
    if on not in PLACES:
        raise LaunchError(f"--on {on}: there is no such place. There is: {', '.join(PLACES)}.")
    found: Launcher = import_module(f"medllm.launch.{on}").launch
    return found
