"""Train by AutoTrain Advanced, a program in its own environment: CPT, and DPO where rpo_alpha is 0; never RPO."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from medllm.errors import LaunchError
from medllm.hub import Artifact
from medllm.launch import local
from medllm.pipeline import BuildContext, BuildPlan, StagePlan, make
from medllm.processes import start_guarded
from medllm.recipe.base import Settings, Stage
from medllm.recipe.settings import Cpt, Rpo, Sft
from medllm.stages.workdir import move_into_place, work_folder, write_facts

LEFT_BEHIND = ("config.json", "tokenizer_config.json", "README.md")
"""Files of a base that are rewritten for AutoTrain; code and pickles are left out as well."""


def readable_base(base: Path, start: Path) -> Path:
    """Write the base as transformers 4.48 reads it: current names of classes and keys replaced by the older ones."""
    start.mkdir(parents=True)
    for path in base.iterdir():
        if path.is_file() and path.name not in LEFT_BEHIND and path.suffix not in (".py", ".bin", ".pt", ".pth"):
            (start / path.name).symlink_to(path.resolve())
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    config.pop("auto_map", None)
    rope = config.get("rope_parameters") or {}
    if "rope_theta" in rope:  # or 4.48 would silently take 10,000
        config["rope_theta"] = rope["rope_theta"]
    config["torch_dtype"] = config.get("dtype") or config.get("torch_dtype") or "float32"
    (start / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    tokenizer_file = base / "tokenizer_config.json"
    tokenizer = json.loads(tokenizer_file.read_text(encoding="utf-8")) if tokenizer_file.is_file() else {}
    tokenizer["tokenizer_class"] = "PreTrainedTokenizerFast"
    tokenizer.pop("extra_special_tokens", None)
    template = base / "chat_template.jinja"
    if template.is_file():
        tokenizer["chat_template"] = template.read_text(encoding="utf-8")
    (start / "tokenizer_config.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    return start


def write_rows(settings: Cpt | Rpo, source: Path, base: Path, data: Path) -> dict[str, int]:
    """Write train.jsonl with the columns that AutoTrain reads; return how many rows there are and are too long."""
    rows = list(_read(settings, source))
    kept = list(_short_enough(rows, base, settings.max_length)) if isinstance(settings, Rpo) else rows
    if not kept:
        raise LaunchError(
            "launch.autotrain-without-rows",
            f"{source}: holds no row for AutoTrain ({len(rows)} are longer than `max_length`). Raise `max_length`, or "
            "give a source with rows.",
        )
    data.mkdir(parents=True)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
    (data / "train.jsonl").write_text(lines, encoding="utf-8")
    return {"rows": len(kept), "too_long": len(rows) - len(kept)}


def _read(settings: Cpt | Rpo, source: Path) -> Iterator[dict[str, str]]:
    prompt = "prompt_without_shots" if isinstance(settings, Rpo) and not settings.keep_exemplars else "prompt"
    wanted = {"text": "text"} if isinstance(settings, Cpt) else {c: c for c in (prompt, "chosen", "rejected")}
    inner = next((source / name for name in ("corpus", "data") if (source / name).is_dir()), source)
    for path in sorted(inner.glob("*.parquet")):
        missing = set(wanted) - set(pq.read_schema(path).names)
        if missing:
            raise LaunchError(
                "training.missing-column",
                f"{path}: there is no column {', '.join(sorted(missing))}. Rename a column, or give the output of the "
                "stage before.",
            )
        talks = [name for name in wanted if not pa.types.is_string(pq.read_schema(path).field(name).type)]
        if talks:
            raise LaunchError(
                "launch.autotrain-without-chat",
                f"{path}: `{talks[0]}` holds conversations, and AutoTrain trains on texts here. Train without "
                "AutoTrain, or make the pairs with `format: completion`.",
            )
        for row in pq.read_table(path, columns=list(wanted)).to_pylist():
            yield {"prompt" if name == prompt else name: str(value) for name, value in row.items()}


def _short_enough(rows: list[dict[str, str]], base: Path, longest: int) -> Iterator[dict[str, str]]:
    """Yield the pairs that fit whole: AutoTrain's trainer would cut the others, and lose where they differ."""
    from tokenizers import Tokenizer

    count = Tokenizer.from_file(str(base / "tokenizer.json"))
    for row in rows:
        prompt, chosen, rejected = (len(count.encode(row[key]).ids) for key in ("prompt", "chosen", "rejected"))
        if prompt + max(chosen, rejected) + 1 <= longest:
            yield row


def config_of(settings: Cpt | Rpo, start: Path, data: Path) -> dict[str, Any]:
    """Return our settings under AutoTrain's names."""
    preferring = isinstance(settings, Rpo)
    mapping = {"text_column": "chosen" if preferring else "text"}
    if preferring:
        mapping |= {"prompt_text_column": "prompt", "rejected_text_column": "rejected"}
    return {
        "task": "llm-dpo" if preferring else "llm-generic",
        "base_model": str(start.resolve()),
        "project_name": "trained",  # letters and hyphens only, so AutoTrain runs in the parent of that folder
        "log": "none",
        "backend": "local",
        "data": {
            "path": str(data.resolve()),
            "train_split": "train",
            "valid_split": None,
            "chat_template": None,
            "column_mapping": mapping,
        },
        "params": _params(settings),
    }


def _params(settings: Cpt | Rpo) -> dict[str, Any]:
    lora = settings.lora
    if lora is None:
        raise LaunchError(
            "launch.autotrain-without-lora",
            "AutoTrain trains a new adapter. Give `lora: {r: ..., lora_alpha: ...}`.",
        )
    # No prompt is cut: rows that do not fit whole are left out.
    dpo = {"dpo_beta": settings.beta, "max_prompt_length": settings.max_length} if isinstance(settings, Rpo) else {}
    return {
        "epochs": int(settings.num_train_epochs or 1),
        "batch_size": settings.per_device_train_batch_size,
        "gradient_accumulation": max(1, settings.total_batch_size // settings.per_device_train_batch_size),
        "lr": settings.learning_rate,
        "scheduler": settings.lr_scheduler_type,
        "warmup_ratio": settings.warmup_ratio,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "block_size": settings.max_length,
        "model_max_length": settings.max_length,
        "optimizer": settings.optim,
        "mixed_precision": {"bfloat16": "bf16", "float16": "fp16", "float32": None}[settings.dtype],
        "disable_gradient_checkpointing": not settings.gradient_checkpointing,
        "use_flash_attention_2": settings.attn_implementation == "flash_attention_2",
        "logging_steps": settings.logging_steps,
        "peft": True,
        "quantization": "int4" if settings.quantization == "nf4" else None,
        "target_modules": ",".join(lora.target_modules),
        "lora_r": lora.r,
        "lora_alpha": lora.lora_alpha,
        "lora_dropout": lora.lora_dropout,
        "seed": settings.seed,
        "padding": "right",
        **dpo,
    }


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
    if isinstance(settings, Sft):
        raise LaunchError(
            "launch.autotrain-without-sft",
            "sft: AutoTrain would learn whole conversations, and medllm learns the assistant's turns alone. Use --on "
            "local, jobs or slurm.",
        )
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
    if settings.format == "chat":
        raise LaunchError(
            "launch.autotrain-without-chat",
            f"{stage}: AutoTrain trains on texts here, not by a chat template. Train without AutoTrain, or write "
            "`format: completion`.",
        )
    if settings.lora is None:
        raise LaunchError(
            "launch.autotrain-without-lora",
            f"{stage}: AutoTrain trains a new adapter. Give `lora: {{r: ..., lora_alpha: ...}}`.",
        )
    for key, usual in type(settings.lora).keys_since.items():
        if settings.lora.model_dump(mode="json")[key] != usual:
            raise LaunchError(
                "launch.autotrain-lora",
                f"{stage}: AutoTrain has no setting for `lora.{key}` and would leave it out. Train without AutoTrain, "
                "or remove that key.",
            )
    of_rpo = ["loss_type"] if isinstance(settings, Rpo) else []
    for key in ("eval_strategy", "chat_template", *of_rpo, *(["optim"] if settings.optim == "muon" else [])):
        if getattr(settings, key) != type(settings).model_fields[key].default:
            raise LaunchError(
                "launch.autotrain-setting",
                f"{stage}: AutoTrain has no `{key}: {getattr(settings, key)}` as it is meant here. Train without "
                "AutoTrain, or remove that key.",
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
    from medllm.training.checkpointing import write_tokenizer
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
    from medllm.training.checkpointing import write_tokenizer
    from medllm.weights.adapter import Adapter, is_adapter, write_base
    from medllm.weights.checkpoint import Checkpoint
    from medllm.weights.load import load_tokenizer
    from medllm.weights.merge import concatenate

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
