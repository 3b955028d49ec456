"""How much memory and disk weights need and how much is free, on each GPU too, asked before any work begins."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from medllm.errors import ModelError
from medllm.recipe.cost import load_bytes
from medllm.recipe.hardware import shape_from_config
from medllm.weights.checkpoint import Checkpoint
from medllm.weights.load import default_device, import_torch


@dataclass(frozen=True)
class VisibleGpu:
    """A GPU of this machine."""

    name: str
    size: int
    """Bytes of its memory."""


def visible_gpus() -> list[VisibleGpu]:
    """The GPUs that torch sees here (CUDA or ROCm), in its order; no process takes hold of one by being counted."""
    torch = import_torch()
    devices = [torch.cuda.get_device_properties(place) for place in range(torch.cuda.device_count())]
    return [VisibleGpu(str(device.name), int(device.total_memory)) for device in devices]


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


WIDTH = {"float32": 4, "bfloat16": 2, "float16": 2}
NF4_PART = 0.28
"""What the linear layers of a 16-bit model take in NF4, scales included, as a share."""
CGROUP = Path("/sys/fs/cgroup")


def numbers_of(base: Checkpoint) -> str:
    """The kind of number that most of a model's weights are stored in, in torch's words."""
    sizes: dict[str, int] = {}
    for tensor in base.tensors.values():
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.size
    most = max(sizes, key=lambda kind: sizes[kind], default="BF16")
    return {"F32": "float32", "F16": "float16"}.get(most, "bfloat16")


def bytes_in_memory(base: Checkpoint, dtype: str, quantization: str = "none") -> int:
    """What a model's weights take once they are loaded, in bytes."""
    ends = sum(_count(base, name) for name in (base.embedding, base.head) if name is not None)
    inner = sum(_count(base, name) for name in base.tensors) - ends
    part = NF4_PART * 2 / WIDTH[dtype] if quantization == "nf4" else 1.0
    return int((inner * part + ends) * WIDTH[dtype])


def memory_free() -> int:
    """Bytes that this process may still take on its accelerator, or in the machine's memory where it has none."""
    torch = import_torch()
    if default_device().type == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    return min(_machine_free(), _group_free())


def _count(base: Checkpoint, name: str) -> int:
    count = 1
    for size in base.tensors[name].shape:
        count *= size
    return count


def _machine_free() -> int:
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text("utf-8").splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError, IndexError):
        return 2**62  # a system that does not report it: nothing is refused there


def _group_free() -> int:
    """What the container still has, where it has a limit; files that are only cached are given back when needed."""
    try:
        most = (CGROUP / "memory.max").read_text("utf-8").strip()
        used = int((CGROUP / "memory.current").read_text("utf-8"))
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text("utf-8").splitlines())
        return 2**62 if most == "max" else int(most) - used + int(stat.get("inactive_file", 0))
    except (OSError, ValueError):
        return 2**62
