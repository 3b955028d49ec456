"""Arguments of TRL's trainers from a recipe's settings, and the numbers that learn."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from medllm.recipe.settings import Cpt, Rpo
from medllm.training.devices import is_sharded, split_batch

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


def trainer_arguments(settings: Cpt | Rpo, work: Path, model: Any = None) -> dict[str, Any]:  # noqa: ANN401
    """What SFTConfig and DPOConfig share, for a model as it was loaded."""
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
        "bf16": (cuda or is_sharded() or _is_mixed(settings, model)) and settings.dtype == "bfloat16",
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


def _is_mixed(settings: Cpt | Rpo, model: Any) -> bool:  # noqa: ANN401
    """Whether what learns are whole modules, or all of them, in float32: then autocast computes in fewer bits."""
    given = [settings.lora] if settings.lora else []
    configs = getattr(model, "peft_config", {}).values()
    return not (given or configs) or any(config.modules_to_save for config in (*given, *configs))


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
