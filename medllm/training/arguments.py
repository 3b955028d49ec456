"""Arguments of TRL's trainers and PEFT's adapters from a recipe's settings, and the layers that an adapter sits on."""

from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from peft import LoraConfig

from medllm.errors import TrainingError
from medllm.recipe.settings import Lora, Training
from medllm.recipe.training import ALL_LINEAR
from medllm.training.devices import is_sharded, split_batch
from medllm.weights.adapter import outside_text


def linear_layers(model: Any) -> list[str]:  # noqa: ANN401  a PreTrainedModel, or a PeftModel
    """The names of all linear layers that work on text, the head left out; under an adapter, as without it."""
    head = model.get_output_embeddings()
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model
    names = []
    for name, module in decoder.named_modules():
        if name.endswith("base_layer") or ".lora_" in name or module is head:
            continue
        layer = getattr(module, "base_layer", module)
        if isinstance(layer, torch.nn.Linear):  # those of bitsandbytes are, too
            names.append(name)
    return names


def target_modules(lora: Lora, model: Any) -> list[str]:  # noqa: ANN401  a PreTrainedModel
    """The names for PEFT. Raises TrainingError for one that no layer of the model has."""
    known = sorted({name.rsplit(".", 1)[-1] for name in linear_layers(model)})
    if ALL_LINEAR in lora.target_modules:
        return known
    everything = [name for name, _ in model.named_modules()]
    for wanted in lora.target_modules:
        if not any(name == wanted or name.endswith(f".{wanted}") for name in everything):
            raise TrainingError(
                "training.unknown-layer",
                f"lora.target_modules: the base has no layer `{wanted}`. Its linear layers: {', '.join(known)}. Name "
                f"some of them, or write `[{ALL_LINEAR}]`.",
            )
    return list(lora.target_modules)


def coverage(model: Any) -> str:  # noqa: ANN401  a PeftModel
    """One sentence: how many linear layers learn, by their names, and which do not."""
    adapted: Counter[str] = Counter()
    left: Counter[str] = Counter()
    base = model.get_base_model()
    modules = dict((base.get_decoder() if hasattr(base, "get_decoder") else base).named_modules())
    for name in linear_layers(base):
        (adapted if hasattr(modules[name], "lora_A") else left)[name.rsplit(".", 1)[-1]] += 1
    text = f"adapters on {adapted.total()} of {adapted.total() + left.total()} linear layers ({_counted(adapted)})"
    return text + (f"; without one: {_counted(left)}" if left else "")


def _counted(names: Counter[str]) -> str:
    return ", ".join(f"{name} x {count}" for name, count in sorted(names.items())) or "none"


PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others in an exchange; loading a large model takes unlike long."""
SAME_NAME = {
    "gradient_checkpointing",
    "learning_rate",
    "logging_steps",
    "lr_scheduler_type",
    "max_grad_norm",
    "save_steps",
    "seed",
    "weight_decay",
}
"""Keys that a recipe and transformers' TrainingArguments share, with the same values."""


def processes() -> PartialState:
    """Find the processes that train together; on a CPU they find each other only when the state is asked for a CPU.

    Asked without that, accelerate takes each CPU process for a lone one, and every update took twice the rows.
    """
    return PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)


def trainer_arguments(settings: Training, work: Path) -> dict[str, Any]:
    """What SFTConfig and DPOConfig share."""
    per_device, accumulation = split_batch(
        settings.total_batch_size, settings.per_device_train_batch_size, processes().num_processes
    )
    cuda = torch.cuda.is_available()
    length: dict[str, Any] = {"num_train_epochs": settings.num_train_epochs or 1}
    if settings.max_steps:
        length = {"max_steps": settings.max_steps}
    return {
        **length,
        **settings.model_dump(include=SAME_NAME),
        "output_dir": str(work / "checkpoints"),
        "per_device_train_batch_size": per_device,
        "gradient_accumulation_steps": accumulation,
        "warmup_steps": settings.warmup_ratio,  # transformers reads a number below 1 as a share of the updates
        "optim": "adamw_torch_fused" if cuda and settings.optim == "adamw_torch" else settings.optim,
        "bf16": (cuda or is_sharded()) and settings.dtype == "bfloat16",
        "fp16": cuda and settings.dtype == "float16",
        "use_cpu": not cuda,
        "save_total_limit": 2,
        "logging_nan_inf_filter": False,
        "report_to": ["trackio"] if "trackio" in settings.report_to else "none",
        "project": "medllm",
        "remove_unused_columns": False,
        "max_length": None,
        "dataloader_pin_memory": cuda,
        "ddp_find_unused_parameters": False,
    }


def lora_config(lora: Lora, model: Any) -> LoraConfig:  # noqa: ANN401  a PreTrainedModel
    """PEFT's words for a fresh adapter, on the layers that work on text."""
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.lora_alpha,
        lora_dropout=lora.lora_dropout,
        target_modules=target_modules(lora, model),
        exclude_modules=outside_text(model),
        task_type="CAUSAL_LM",
    )


def learning(model: Any) -> dict[str, torch.Tensor]:  # noqa: ANN401  a PeftModel, or a model without an adapter
    """Copy what is to learn, before TRL touches it."""
    if not hasattr(model, "peft_config"):
        return {}
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def set_up_adapters(trainer: Any, start: dict[str, torch.Tensor]) -> None:  # noqa: ANN401  one of TRL's trainers
    """Let adapters learn in float32, from the numbers they had before TRL touched them.

    On a 4-bit base TRL makes them bfloat16, whose steps are so wide that most updates at the rates of preference
    training (1e-6 on weights around 1e-2) round to nothing.
    """
    for name, parameter in trainer.model.named_parameters():
        if parameter.requires_grad:
            parameter.data = start.get(name, parameter.data).to(parameter.device, torch.float32, copy=True)


def keep_lora_dropout_only(model: Any) -> None:  # noqa: ANN401  a PeftModel
    """Switch off the dropout of the base, as TRL does for preferences, but leave the adapter's, which a recipe sets."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout) and "lora_dropout" not in name:
            module.p = 0.0


def has_dropout(model: Any) -> bool:  # noqa: ANN401  a model, bare or wrapped
    """Whether two passes over the same batch differ while the model learns."""
    return any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules())
