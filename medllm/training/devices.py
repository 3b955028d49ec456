"""What a training finds on this machine: processes, devices, accelerate's configuration, libraries for curves."""

import os
from importlib.util import find_spec
from typing import Any

from medllm.errors import TrainingError
from medllm.recipe.hardware import machine
from medllm.recipe.training import Training


def is_chief() -> bool:
    """Whether this process makes what all of a training read: the first of them, or the one that starts them."""
    return os.environ.get("RANK", "0") == "0"


def is_sharded() -> bool:
    """Whether the processes divide one model by FSDP."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def world() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


TRACKERS = {
    "wandb": {
        "WANDB_PROJECT": "medllm",
        "WANDB_CONSOLE": "off",
        "WANDB_DISABLE_GIT": "true",
        "WANDB_DISABLE_CODE": "true",
    },
    "mlflow": {"MLFLOW_EXPERIMENT_NAME": "medllm"},
}
"""Variables of trackers and their values here, where the environment has no others: figures and settings are kept, not
what is printed, nor the code."""
OFFLINE = {"wandb": {"WANDB_MODE": "offline"}}
"""Further ones where the Hub is offline: then wandb writes to its folder alone."""


def missing_tracker(stage: str, settings: Training) -> TrainingError | None:
    """Return the error of a library that `report_to` names and that is not installed here; None without any."""
    missing = [name for name in settings.report_to if find_spec(name) is None]
    if not missing:
        return None
    return TrainingError(
        "training.no-tracker",
        f"{stage}.report_to: `{missing[0]}` is not installed here. Run `pip install {missing[0]}` (for a Job write "
        f"`jobs: {{packages: [{missing[0]}]}}`), or remove it from `report_to`.",
    )


def set_up_trackers(stage: str, settings: Training) -> None:
    """Set variables of trackers that the environment leaves open; raise TrainingError where a library is missing."""
    if fault := missing_tracker(stage, settings):
        raise fault
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    for name in settings.report_to:
        for key, value in {**TRACKERS.get(name, {}), **(OFFLINE.get(name, {}) if offline else {})}.items():
            os.environ.setdefault(key, value)


FSDP2 = {
    "distributed_type": "FSDP",
    "mixed_precision": "bf16",
    "fsdp_config": {
        "fsdp_version": 2,
        "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "fsdp_reshard_after_forward": True,
        "fsdp_state_dict_type": "SHARDED_STATE_DICT",
        "fsdp_cpu_ram_efficient_loading": True,
        "fsdp_offload_params": False,
    },
}
"""One model sharded over the GPUs, layer by layer."""


def processes(stage: str, settings: Training, visible: int, nodes: int = 1) -> tuple[int, str | None]:
    """How many processes a node gets: as many as GPUs are seen, `run_on` allows and the batch divides over.

    The second value is the reason for fewer, for the user; none when every GPU is used.
    """
    asked = machine(settings.run_on) if settings.run_on else None
    most = min(visible, asked.count) if asked and asked.gpu else visible
    each = settings.per_device_train_batch_size * nodes
    count = next((index for index in range(max(most, 1), 0, -1) if settings.total_batch_size % (each * index) == 0), 0)
    if not count:
        over = f"{nodes} nodes" if nodes > 1 else "one device"
        raise TrainingError(
            "recipe.batch-not-divisible",
            f"{stage}: `total_batch_size` {settings.total_batch_size} is not a multiple of "
            f"`per_device_train_batch_size` {settings.per_device_train_batch_size} on {over}. Change one of them.",
        )
    if count == visible or not visible:
        return count, None
    notice = f"{stage}: {visible} GPUs are visible"
    if most < visible:
        notice += f", run_on: {settings.run_on} asks for {most}"
    if count < most:
        notice += (
            f", and {settings.total_batch_size} rows (total_batch_size) do not divide over {most} with "
            f"{settings.per_device_train_batch_size} at once" + (f" on {nodes} nodes" if nodes > 1 else "")
        )
    return count, f"{notice}: {count} {'is' if count == 1 else 'are'} used"


def config(settings: Training, count: int, nodes: int, *, gpus: bool) -> dict[str, Any] | None:
    """Write accelerate's configuration for so many processes on each node; none when this process can do it alone."""
    if count * nodes < 2 and not gpus:
        return None
    values: dict[str, Any] = {"compute_environment": "LOCAL_MACHINE", "num_processes": count * nodes}
    values |= {"num_machines": nodes, "rdzv_backend": "static", "same_network": True, "use_cpu": not gpus}
    if not gpus:
        return values | {"distributed_type": "MULTI_CPU", "mixed_precision": "no"}
    if count * nodes == 1:  # the others must not be seen, or the trainer would spread itself over them
        first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip() or "0"
        return values | {"distributed_type": "NO", "mixed_precision": "no", "gpu_ids": first}
    if settings.accelerate == "fsdp2":
        return values | FSDP2 | ({"mixed_precision": "no"} if settings.dtype == "float32" else {})
    return values | {"distributed_type": "MULTI_GPU", "mixed_precision": "no"}


def refuse_config(stage: str, settings: Training, values: dict[str, Any]) -> None:
    """Raise for a configuration of accelerate with which this training cannot work, before anything is loaded."""
    kind = str(values.get("distributed_type")).upper()
    if kind == "DEEPSPEED":
        raise TrainingError(
            "training.deepspeed",
            f"{stage}.accelerate: medllm does not support DeepSpeed (reason: docs/training.md). Write `accelerate: "
            "fsdp2` to divide one model over GPUs.",
        )
    if kind == "FSDP":
        _refuse_divided(stage, settings, str((values.get("fsdp_config") or {}).get("fsdp_version")))
    split_batch(settings.total_batch_size, settings.per_device_train_batch_size, int(values.get("num_processes") or 1))


def _refuse_divided(stage: str, settings: Training, version: str) -> None:
    if version != "2":
        raise TrainingError(
            "training.fsdp-version",
            f"{stage}.accelerate: `fsdp_version` of the file is {version}; medllm supports 2. Set `fsdp_version: "
            "2` in the file, or write `accelerate: fsdp2`.",
        )
    if settings.optim != "adamw_torch":
        raise TrainingError(
            "recipe.optimizer-not-divisible",
            f"{stage}.optim: FSDP2 cannot divide `{settings.optim}` over GPUs. Set `optim: adamw_torch`, or "
            "`accelerate: ddp`.",
        )
    if settings.quantization == "nf4" and settings.dtype != "bfloat16":
        raise TrainingError(
            "recipe.nf4-not-bfloat16",
            f"{stage}.dtype: FSDP2 would cast the 4-bit base, stored as {settings.dtype}, to bfloat16. Set `dtype: "
            "bfloat16`.",
        )


def split_batch(batch_size: int, per_device: int, devices: int) -> tuple[int, int]:
    """Rows on a device at once, and how many such steps make an update of `batch_size` rows.

    >>> split_batch(16, 4, 2)
    (4, 2)
    """
    if batch_size % devices:
        raise TrainingError(
            "recipe.batch-not-divisible",
            f"`total_batch_size` {batch_size} is not a multiple of {devices} devices. Make it one.",
        )
    share = batch_size // devices
    per_device = min(per_device, share)
    if share % per_device:
        raise TrainingError(
            "recipe.batch-not-divisible",
            f"`total_batch_size` {batch_size} gives each of {devices} devices {share} rows, which is not a multiple of "
            f"`per_device_train_batch_size` {per_device}. Change one of them.",
        )
    return per_device, share // per_device
