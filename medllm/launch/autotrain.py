"""Train by AutoTrain Advanced, a program in an environment of its own: CPT, and DPO where rpo_alpha is 0; never RPO."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from medllm.errors import LaunchError
from medllm.hub import Artifact
from medllm.launch import here
from medllm.pipeline import Bench, Item, Plan, make
from medllm.recipe.reference import Stage
from medllm.recipe.settings import Cpt, Rpo
from medllm.recipe.shape import Settings

PACKAGE = "autotrain-advanced==0.8.36"
"""Its last release, of January 2025; it pins huggingface_hub 0.27, so it can never share our environment."""
OVERRIDES = """\
torch==2.13.0
torchvision ; sys_platform == 'never'
timm ; sys_platform == 'never'
nvidia-nccl-cu12 ; sys_platform == 'never'
"""
"""What its pins would pull in and its text trainers do not use; accelerate fails on a timm without torchvision."""
COLUMNS = {"cpt": ("text",), "rpo": ("prompt", "chosen", "rejected")}
LAST_LINES = 15


def launch(plan: Plan, item: Item, made: dict[Stage, Artifact], bench: Bench) -> None:
    """Train what AutoTrain can train; the stages that are no training are made here."""
    if isinstance(item.settings, Rpo) and item.settings.rpo_alpha > 0:
        raise LaunchError(
            "rpo: AutoTrain cannot do Reasoning Preference Optimization: none of its settings weighs the likelihood of "
            "the chosen answer. Use --on here, jobs or slurm; with rpo_alpha 0 it can train plain DPO."
        )
    if not isinstance(item.settings, Cpt | Rpo):
        here.launch(plan, item, made, bench)
        return
    if item.settings.model != "base":
        raise LaunchError(f"{item.stage}: AutoTrain starts from a full model. Set {item.stage}.model: base.")
    if item.settings.lora is None:
        raise LaunchError(f"{item.stage}: AutoTrain makes a fresh adapter. Give `lora: {{r: ..., lora_alpha: ...}}`.")
    if item.settings.epochs is None or item.settings.epochs % 1:
        raise LaunchError(f"{item.stage}: AutoTrain counts whole epochs. Give `epochs` in place of `max_steps`.")
    make(plan, item, made, train, bench)


def train(settings: Settings, sources: dict[str, Path], out: Path) -> None:
    """Write its data and config, run it, and look for the adapter: it exits 0 even when training crashed."""
    if not isinstance(settings, Cpt | Rpo):
        raise TypeError("only trainings are sent to AutoTrain")
    stage = "cpt" if isinstance(settings, Cpt) else "rpo"
    work = out.with_name(out.name + ".part")
    shutil.rmtree(work, ignore_errors=True)  # it cannot go on from a checkpoint
    start = readable_base(sources["base"], work / "start")
    rows = write_rows(sources[settings.data], work / "data", COLUMNS[stage])
    config = work / "autotrain.yaml"
    config.write_text(yaml.safe_dump(config_of(settings, start, work), sort_keys=False), encoding="utf-8")
    log = work / "autotrain.log"
    code = _run(config, log)
    trained = work / "trained"
    if not (trained / "adapter_model.safetensors").is_file():
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
        said = "\n".join(f"  {line}" for line in lines)
        raise LaunchError(f"{stage}: AutoTrain ended with code {code} and left no adapter. Its last words:\n{said}")
    _take(trained, sources["base"], out, {"stage": stage, "rows": rows, "trained_by": PACKAGE})


def readable_base(base: Path, start: Path) -> Path:
    """The base as transformers 4.48 reads it: names of today's classes and keys put into yesterday's."""
    start.mkdir(parents=True)
    for path in base.iterdir():
        if path.is_file() and path.name not in ("config.json", "tokenizer_config.json", "README.md"):
            (start / path.name).symlink_to(path.resolve())
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    rope = config.get("rope_parameters") or {}
    if "rope_theta" in rope:  # or 4.48 would silently take 10,000
        config["rope_theta"] = rope["rope_theta"]
    config["torch_dtype"] = config.get("dtype") or config.get("torch_dtype") or "float32"
    (start / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    told = base / "tokenizer_config.json"
    tokenizer = json.loads(told.read_text(encoding="utf-8")) if told.is_file() else {}
    tokenizer["tokenizer_class"] = "PreTrainedTokenizerFast"
    tokenizer.pop("extra_special_tokens", None)
    template = base / "chat_template.jinja"
    if template.is_file():
        tokenizer["chat_template"] = template.read_text(encoding="utf-8")
    (start / "tokenizer_config.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    return start


def write_rows(source: Path, data: Path, columns: tuple[str, ...]) -> int:
    """The columns it reads, as train.jsonl; returns how many rows there are."""
    inner = next((source / name for name in ("corpus", "data") if (source / name).is_dir()), source)
    tables = [pq.read_table(path, columns=list(columns)) for path in sorted(inner.glob("*.parquet"))]
    rows = [row for table in tables for row in table.to_pylist()]
    if not rows:
        raise LaunchError(f"{source}: holds no rows with the columns {', '.join(columns)}.")
    data.mkdir(parents=True)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (data / "train.jsonl").write_text(lines, encoding="utf-8")
    return len(rows)


def config_of(settings: Cpt | Rpo, start: Path, work: Path) -> dict[str, Any]:
    """Our settings in AutoTrain's words."""
    preferring = isinstance(settings, Rpo)
    mapping = {"text_column": "chosen" if preferring else "text"}
    if preferring:
        mapping |= {"prompt_text_column": "prompt", "rejected_text_column": "rejected"}
    return {
        "task": "llm-dpo" if preferring else "llm-generic",
        "base_model": str(start.resolve()),
        "project_name": "trained",  # it takes letters and hyphens only, so it is run where that folder shall lie
        "log": "none",
        "backend": "local",
        "data": {
            "path": str((work / "data").resolve()),
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
        raise LaunchError("AutoTrain makes a fresh adapter: give `lora`.")
    dpo = (
        {"dpo_beta": settings.beta, "max_prompt_length": settings.max_length // 2} if isinstance(settings, Rpo) else {}
    )
    return {
        "epochs": int(settings.epochs or 1),
        "batch_size": settings.per_device_batch_size,
        "gradient_accumulation": max(1, settings.batch_size // settings.per_device_batch_size),
        "lr": settings.learning_rate,
        "scheduler": settings.schedule,
        "warmup_ratio": settings.warmup,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "block_size": settings.max_length,
        "model_max_length": settings.max_length,
        "optimizer": "adamw_torch",
        "mixed_precision": {"bfloat16": "bf16", "float16": "fp16", "float32": None}[settings.dtype],
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


def _run(config: Path, log: Path) -> int:
    """Run the program by uv, which keeps its environment apart; it sees no token."""
    if shutil.which("uv") is None:
        raise LaunchError("--on autotrain: it needs `uv` for an environment of its own: pip install uv.")
    overrides = config.with_name("overrides.txt")
    overrides.write_text(OVERRIDES, encoding="utf-8")
    command = ["uv", "tool", "run", "--python", "3.11", "--overrides", str(overrides.resolve()), "--from", PACKAGE]
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_TOKEN", "HF_ENDPOINT"))
    }
    environment |= {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}
    with log.open("wb") as stream:
        done = subprocess.run(
            [*command, "autotrain", "--config", str(config.resolve())],
            cwd=config.parent,
            env=environment,
            stdout=stream,
            stderr=stream,
            check=False,
        )
    return done.returncode


def _take(trained: Path, base: Path, out: Path, facts: dict[str, Any]) -> None:
    """Lay the adapter out as our own trainings do."""
    from medllm.weights.adapter import write_base
    from medllm.weights.checkpoint import Checkpoint

    made = out.with_name(out.name + ".part") / "made"
    made.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy2(trained / name, made / name)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        if (base / name).is_file():
            shutil.copy2(base / name, made / name)
    write_base(made, Checkpoint(base))
    (made / "facts.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    made.replace(out)
