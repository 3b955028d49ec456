"""What machine made an output, in words for its card: its GPUs, or its processor where there is none."""

import os
import platform
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")


def hardware() -> str:
    """The GPUs that this process may use, by their names; else the processor and how many cores of it."""
    found = Counter(gpu_names())
    if found:
        return ", ".join(f"{count} x {name}" for name, count in found.items())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"{_processor()}, {cores} core{'s' if cores > 1 else ''}, no GPU"


def gpu_names() -> list[str]:
    """One name for each GPU that is visible here, as the driver calls it."""
    names: list[str] = []
    if shutil.which("nvidia-smi"):
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
        names = re.findall(r"^GPU \d+: (.+?) \(UUID", listed, re.MULTILINE)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return names
    wanted = [one.strip() for one in visible.split(",") if one.strip() not in ("", "-1")]
    return [names[int(one)] if one.isdecimal() and int(one) < len(names) else "GPU" for one in wanted]


def _processor() -> str:
    told = CPU_INFO.read_text(encoding="utf-8", errors="replace") if CPU_INFO.is_file() else ""
    found = re.search(r"^model name\s*:\s*(.+)$", told, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()
