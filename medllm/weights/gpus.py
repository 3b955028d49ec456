"""The GPUs of this machine, and a check before loading that each of them can hold its copies of a base."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from medllm.errors import ModelError
from medllm.recipe.cost import load_bytes
from medllm.recipe.model_shapes import shape_from_config
from medllm.weights.load import import_torch


@dataclass(frozen=True)
class VisibleGpu:
    """A GPU of this machine."""

    name: str
    size: int
    """Bytes of its memory."""


def visible_gpus() -> list[VisibleGpu]:
    """The GPUs that torch sees here (CUDA or ROCm), in its order; no process takes hold of one by being counted."""
    torch = import_torch()
    found = [torch.cuda.get_device_properties(place) for place in range(torch.cuda.device_count())]
    return [VisibleGpu(str(one.name), int(one.total_memory)) for one in found]


def refuse_small_gpus(
    what: str,
    base: Path | None,
    gpus: Mapping[int, VisibleGpu],
    *,
    quantization: str,
    dtype: str,
    shares: int = 1,
    copies: int = 1,
) -> None:
    """Raise ModelError when a GPU cannot hold the base while it is loaded, naming the GPU and both sizes in GB.

    `gpus` has each GPU by its number, `shares` counts the GPUs over which FSDP2 divides the base, and `copies` the
    processes that load it onto the same GPU. A base whose shape is unknown is not judged.
    """
    try:
        shape = shape_from_config(base / "config.json") if base else None
    except ModelError:
        return
    if shape is None:
        return
    need = load_bytes(shape, quantization, dtype, shares) * copies
    for number, gpu in gpus.items():
        if gpu.size < need:
            times = f" {copies} times" if copies > 1 else ""
            mend = "Set `quantization: nf4`, or take" if quantization == "none" else "Take"
            fewer = ", fewer `num_processes`" if copies > 1 else ""
            raise ModelError(
                "weights.gpu-too-small",
                f"{what}: GPU {number} ({gpu.name}) has {gpu.size / 1e9:.0f} GB, and loading the base{times} takes "
                f"about {need / 1e9:.0f} GB on each GPU. {mend} larger GPUs{fewer} or a smaller base.",
            )
