"""The inputs of AutoTrain Advanced: a base it can read, rows in its columns, and our settings under its names."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from medllm.errors import LaunchError
from medllm.recipe.settings import Cpt, Rpo

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
