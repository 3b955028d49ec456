"""Train by AutoTrain Advanced, a program in its own environment: CPT, and DPO where rpo_alpha is 0; never RPO."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import yaml

from medllm.errors import LaunchError
from medllm.hub import Artifact
from medllm.launch import local
from medllm.launch.autotrain_config import config_of, readable_base, write_rows
from medllm.pipeline import BuildContext, BuildPlan, StagePlan, make
from medllm.processes import start_guarded
from medllm.recipe.base import Settings
from medllm.recipe.reference import Stage
from medllm.recipe.settings import Cpt, Rpo
from medllm.stages.workdir import move_into_place, work_folder, write_facts

PROGRAM = "MEDLLM_AUTOTRAIN"
"""The environment variable that names an installed `autotrain`; without it uv installs one."""
PACKAGE = "autotrain-advanced==0.8.36"
"""Its last release, of January 2025; it pins huggingface_hub 0.27, so it can never share our environment."""
OVERRIDES = """\
torch==2.13.0
torchvision ; sys_platform == 'never'
timm ; sys_platform == 'never'
nvidia-nccl-cu12 ; sys_platform == 'never'
"""
"""Packages that its pins pull in and its text trainers do not use; accelerate fails on a timm without torchvision."""
LAST_LINES = 15


def launch(plan: BuildPlan, item: StagePlan, made: dict[Stage, Artifact], bench: BuildContext) -> None:
    """Train a stage by AutoTrain; make the stages that are no training here."""
    refuse(item)
    if isinstance(item.settings, Cpt | Rpo):
        make(plan, item, made, train, bench)
    else:
        local.launch(plan, item, made, bench)


def refuse(item: StagePlan) -> None:
    """Raise LaunchError for what AutoTrain cannot do: checked for the whole plan before its first stage is made."""
    settings, stage = item.settings, item.stage
    if not isinstance(settings, Cpt | Rpo):
        return
    if isinstance(settings, Rpo) and settings.rpo_alpha > 0:
        raise LaunchError(
            "launch.autotrain-without-rpo",
            "rpo: AutoTrain cannot do Reasoning Preference Optimization: none of its settings weighs the likelihood of "
            "the chosen answer. It could only run our own script on a rented machine (its SpaceRunner), which is what "
            "--on jobs does. Use --on local, jobs or slurm; with `rpo_alpha: 0` it trains plain DPO.",
        )
    if isinstance(settings, Cpt) and settings.model != "base":
        raise LaunchError(
            "launch.autotrain-from-adapter", "cpt: AutoTrain starts from a full model. Set `cpt.model: base`."
        )
    if settings.lora is None:
        raise LaunchError(
            "launch.autotrain-without-lora",
            f"{stage}: AutoTrain trains a new adapter. Give `lora: {{r: ..., lora_alpha: ...}}`.",
        )
    if settings.model != "base" and settings.quantization == "nf4":
        raise LaunchError(
            "launch.autotrain-on-4-bit",
            f"{stage}: AutoTrain trains a new adapter on the base merged with {settings.model}, and 4-bit weights "
            "would round that model once more. Set `quantization: none`.",
        )
    if settings.num_train_epochs is None or settings.num_train_epochs % 1:
        raise LaunchError(
            "launch.autotrain-epochs",
            f"{stage}: AutoTrain counts whole epochs. Give a whole `num_train_epochs` instead of `max_steps`.",
        )


def train(settings: Settings, sources: dict[str, Path], out: Path) -> None:
    """Write the data and config, run AutoTrain, and check for the adapter: AutoTrain exits 0 even after a crash."""
    if not isinstance(settings, Cpt | Rpo):
        raise TypeError("only trainings are sent to AutoTrain")
    stage = "cpt" if isinstance(settings, Cpt) else "rpo"
    shutil.rmtree(work_folder(out))  # AutoTrain cannot resume from a checkpoint
    work = work_folder(out)
    whole = _folded(sources["base"], sources.get(settings.model, sources["base"]), work / "folded")
    start = readable_base(whole, work / "start")
    rows = write_rows(settings, sources[settings.data], sources["base"], work / "data")
    config = work / "autotrain.yaml"
    config.write_text(yaml.safe_dump(config_of(settings, start, work / "data"), sort_keys=False), encoding="utf-8")
    log = work / "autotrain.log"
    code = _run(config, log)
    trained = work / "trained"
    if not (trained / "adapter_model.safetensors").is_file():
        raise LaunchError(
            "launch.autotrain-failed",
            f"{stage}: AutoTrain ended with code {code} and left no adapter. Mend what its log names and run again."
            f"{_end_of_log(log)}",
        )
    facts = {"stage": stage, **rows, "trained_by": PACKAGE, "settings": settings.model_dump(mode="json")}
    _take(trained, whole, sources, settings.model, out, facts)
    shutil.rmtree(work)


def _folded(base: Path, start: Path, folder: Path) -> Path:
    """Return the full model to start from: the base, with the adapter merged where the recipe starts from one."""
    from medllm.weights.adapter import Adapter, is_adapter
    from medllm.weights.checkpoint import Checkpoint

    if not is_adapter(start):
        return start
    from medllm.training.export import write_tokenizer
    from medllm.weights.load import load_tokenizer
    from medllm.weights.merge import merge

    merge(Checkpoint(base), [Adapter(start)], folder, dtype=None, say=lambda text: None)
    write_tokenizer(load_tokenizer(base), folder)
    return folder


def _run(config: Path, log: Path) -> int:
    """Run the program in its own environment; it sees no token, and ends with this process even if it is killed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(config.with_name("home").resolve())}
    environment |= {"WANDB_MODE": "offline", "ALLOW_REMOTE_CODE": "false"}
    words = _program(config, environment)
    words += ["--config", str(config.resolve())]
    with log.open("wb") as stream:
        guard = start_guarded(words, cwd=config.parent, env=environment, stdout=stream, stderr=stream)
    assert guard.stdin is not None
    try:
        return guard.wait()
    finally:
        guard.stdin.close()  # at this the guard ends the program, and then itself; killed, it could not
        guard.wait()


def _program(config: Path, environment: dict[str, str]) -> list[str]:
    """Return the program that MEDLLM_AUTOTRAIN names, else one that uv installs in an environment apart from ours."""
    own = os.environ.get(PROGRAM)
    if own:
        if not Path(own).is_file():
            raise LaunchError(
                "launch.no-autotrain-program",
                f"{PROGRAM}: there is no program {own}. Name the `autotrain` of its own environment.",
            )
        # AutoTrain starts `accelerate` by that bare name, and must not find ours.
        environment["PATH"] = f"{Path(own).absolute().parent}{os.pathsep}{environment['PATH']}"
        return [str(Path(own).absolute())]
    if shutil.which("uv") is None:
        raise LaunchError(
            "launch.no-uv",
            f"--on autotrain: AutoTrain needs its own environment, which uv makes. Install uv (pip install uv), or set "
            f"{PROGRAM} to the `autotrain` of an environment that you made.",
        )
    overrides = config.with_name("overrides.txt")
    overrides.write_text(OVERRIDES, encoding="utf-8")
    options = ["--python", "3.11", "--overrides", str(overrides.resolve()), "--from", PACKAGE]
    return ["uv", "tool", "run", *options, "autotrain"]


def _end_of_log(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
    return " The end of the log:\n" + "\n".join(f"  {line}" for line in lines)


def _take(trained: Path, whole: Path, sources: dict[str, Path], model: str, out: Path, facts: dict[str, Any]) -> None:
    """Check the adapter and write it as our own trainings do: on the base alone it gives the whole training."""
    from medllm.training.export import write_tokenizer
    from medllm.weights.adapter import Adapter, is_adapter, write_base
    from medllm.weights.checkpoint import Checkpoint
    from medllm.weights.combine import concatenate
    from medllm.weights.load import load_tokenizer

    made = work_folder(out) / "made"
    made.mkdir()
    _checked(trained, made)
    above = Adapter(made)
    above.fits(Checkpoint(whole))
    if is_adapter(sources.get(model, sources["base"])):
        concatenate([Adapter(sources[model]), above], made)
    base = Checkpoint(sources["base"])
    write_base(made, base)
    write_tokenizer(load_tokenizer(base.folder), made)
    write_facts(made, {"base": base.name, "fingerprint": base.fingerprint, **facts})
    move_into_place(made, out, ())


def _checked(trained: Path, made: Path) -> None:
    """Copy the adapter without the embedding that AutoTrain stores after a resize; refuse NaN values."""
    from safetensors.torch import load_file, save_file

    learnt = {
        name: tensor
        for name, tensor in load_file(str(trained / "adapter_model.safetensors")).items()
        if ".lora_" in name
    }
    if not learnt or not all(bool(tensor.isfinite().all()) for tensor in learnt.values()):
        raise LaunchError(
            "launch.autotrain-broken-adapter",
            f"{trained}: AutoTrain produced no adapter, or one with NaN values. Lower `learning_rate` and run again.",
        )
    save_file(learnt, str(made / "adapter_model.safetensors"))
    config = json.loads((trained / "adapter_config.json").read_text(encoding="utf-8"))
    config["modules_to_save"] = None
    (made / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
