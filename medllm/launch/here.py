"""Make a stage on this machine: in this process, or by accelerate with one process for each of several devices."""

from importlib import import_module

from medllm.hub import Artifact
from medllm.pipeline import Bench, Item, Maker, Plan, make
from medllm.recipe.reference import Stage


def launch(plan: Plan, item: Item, made: dict[Stage, Artifact], bench: Bench) -> None:
    """Make the stage here."""
    make(plan, item, made, maker_of(item.stage), bench)


def maker_of(stage: Stage) -> Maker:
    """The stage's own `make`; importing it is what loads torch, so it comes last."""
    found: Maker = import_module(f"medllm.stages.{stage}").make
    return found
