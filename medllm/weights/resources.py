"""How much memory and disk weights need, and how much is free, asked before any work begins."""

from pathlib import Path

from medllm.weights.checkpoint import Checkpoint
from medllm.weights.load import default_device, import_torch

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
