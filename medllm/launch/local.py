"""Make a stage on this machine: in this process, or by accelerate with one process for each of several devices."""

import sys
from contextlib import redirect_stdout
from functools import partial
from importlib import import_module
from pathlib import Path

import yaml

from medllm.hub import Artifact
from medllm.pipeline import BuildContext, BuildPlan, Maker, StagePlan, make
from medllm.recipe.base import Settings, Stage
from medllm.recipe.hardware import nodes
from medllm.recipe.training import NAMED, Training


def launch(plan: BuildPlan, item: StagePlan, made: dict[Stage, Artifact], bench: BuildContext) -> None:
    """Make the stage in this process."""
    make(plan, item, made, maker_of(item.stage, plan.recipe.folder), bench)


def maker_of(stage: Stage, folder: Path | None = None) -> Maker:
    """Return the stage's own `make`, with its output kept out of ours; its import loads torch, so it comes last."""

    def work(settings: Settings, sources: dict[str, Path], out: Path) -> None:
        with redirect_stdout(sys.stderr):
            spread = on_all_devices(settings, out, stage=stage, base=sources.get("base"), folder=folder)
            module = import_module(f"medllm.stages.{stage}")
            if stage == "rounds":  # which runs other stages, as they are run here
                module.make(spread, sources, out, partial(maker_of, folder=folder))
            else:
                module.make(spread, sources, out)

    return work


def on_all_devices(
    settings: Settings, out: Path, *, stage: str = "training", base: Path | None = None, folder: Path | None = None
) -> Settings:
    """Return settings whose `accelerate` names a file for the devices of this machine, unless the recipe names its own.

    The devices in use are printed, and settings that cannot work are refused, before anything is loaded. The file that
    a recipe names is searched for beside the recipe first.
    """
    from medllm.training import devices
    from medllm.weights import resources as hardware

    if not isinstance(settings, Training):
        return settings
    if settings.accelerate is not None and settings.accelerate not in NAMED:
        beside = folder / settings.accelerate if folder else None
        return settings.model_copy(update={"accelerate": str(beside)}) if beside and beside.is_file() else settings
    gpus = hardware.visible_gpus()
    machines = nodes()
    count, notice = devices.processes(stage, settings, len(gpus), machines)
    if notice:
        sys.stderr.write(f"medllm: {notice}\n")
    hardware.refuse_small_gpus(
        stage,
        base,
        dict(enumerate(gpus[:count])),
        quantization=settings.quantization,
        dtype=settings.dtype,
        shares=count * machines if settings.accelerate == "fsdp2" else 1,
    )
    config = devices.config(settings, count, machines, gpus=bool(gpus)) if len(gpus) > 1 or machines > 1 else None
    if config is None:
        return settings.model_copy(update={"accelerate": None}) if settings.accelerate else settings
    path = out.with_name("accelerate.yaml")
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return settings.model_copy(update={"accelerate": str(path)})
