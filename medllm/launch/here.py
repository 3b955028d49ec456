"""Make a stage on this machine: in this process, or by accelerate with one process for each of several devices."""

import sys
import warnings
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path

import yaml

from medllm.hub import Artifact
from medllm.pipeline import Bench, Item, Maker, Plan, make
from medllm.pipeline.machine import gpu_names
from medllm.recipe.reference import Stage
from medllm.recipe.shape import Settings
from medllm.recipe.training import Training


def launch(plan: Plan, item: Item, made: dict[Stage, Artifact], bench: Bench) -> None:
    """Make the stage here."""
    make(plan, item, made, maker_of(item.stage), bench)


def maker_of(stage: Stage) -> Maker:
    """The stage's own `make`, kept from writing among our results; importing it loads torch, so it comes last."""

    def work(settings: Settings, sources: dict[str, Path], out: Path) -> None:
        with redirect_stdout(sys.stderr), warnings.catch_warnings():
            # Libraries' notes to their own developers are no news to whoever runs a recipe.
            warnings.simplefilter("ignore", FutureWarning)
            import_module(f"medllm.stages.{stage}").make(on_all_devices(settings, out), sources, out)

    return work


def on_all_devices(settings: Settings, out: Path) -> Settings:
    """A training whose recipe names no accelerate config gets one process for each GPU, where there are several."""
    if not isinstance(settings, Training) or settings.accelerate is not None:
        return settings
    count = len(gpu_names())
    if count < 2:
        return settings
    config = out.with_name("accelerate.yaml")
    config.write_text(
        yaml.safe_dump(
            {"compute_environment": "LOCAL_MACHINE", "distributed_type": "MULTI_GPU", "num_processes": count}
        ),
        encoding="utf-8",
    )
    return settings.model_copy(update={"accelerate": str(config)})
