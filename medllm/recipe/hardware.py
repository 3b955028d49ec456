"""Machines that a stage may run on: memory, speed, the Hub's name and its price."""

import os
import re
from dataclasses import dataclass

PRICES_READ = "2026-11"
"""When the prices below were read in the Hub's documentation of Jobs (docs/hub/jobs-pricing)."""

NODES = "MEDLLM_NODES"
"""How many machines a stage has, of which this is the first: the script of `--on slurm` sets it."""


def nodes() -> int:
    """How many machines work on this stage."""
    return int(os.environ.get(NODES, "1"))


@dataclass(frozen=True)
class GpuType:
    """One GPU, with the manufacturer's figures; not measured here."""

    memory_gb: float
    tflops: float
    """Dense bf16 (fp16 on a T4) tensor throughput, in 10^12 operations a second."""
    bandwidth_gb: float
    """Memory bandwidth, in 10^9 bytes a second."""
    bfloat16: bool = True


GPUS: dict[str, GpuType] = {
    "t4": GpuType(16, 65, 320, bfloat16=False),
    "l4": GpuType(24, 121, 300),
    "a10g": GpuType(24, 70, 600),
    "l40s": GpuType(48, 362, 864),
    "a100": GpuType(80, 312, 2039),
    "h100": GpuType(80, 989, 3350),
    "h200": GpuType(141, 989, 4800),
}

HUB: dict[tuple[str, int], tuple[str, float]] = {
    ("t4", 1): ("t4-small", 0.40),
    ("l4", 1): ("l4x1", 0.80),
    ("l4", 4): ("l4x4", 3.80),
    ("a10g", 1): ("a10g-small", 1.00),
    ("a10g", 2): ("a10g-largex2", 3.00),
    ("a10g", 4): ("a10g-largex4", 5.00),
    ("l40s", 1): ("l40sx1", 1.80),
    ("l40s", 4): ("l40sx4", 8.30),
    ("l40s", 8): ("l40sx8", 23.50),
    ("a100", 1): ("a100-large", 2.50),
    ("a100", 4): ("a100x4", 10.00),
    ("a100", 8): ("a100x8", 20.00),
    ("h200", 1): ("h200", 5.00),
    ("h200", 2): ("h200x2", 10.00),
    ("h200", 4): ("h200x4", 20.00),
    ("h200", 8): ("h200x8", 40.00),
}
"""The Hub's name and US dollars an hour, for the sizes that it rents out."""

DISK: dict[str, int] = {
    "cpu-basic": 50,
    "cpu-upgrade": 50,
    "t4-small": 50,
    "l4x1": 400,
    "l4x4": 3200,
    "a10g-small": 110,
    "a10g-largex2": 1000,
    "a10g-largex4": 2000,
    "l40sx1": 380,
    "l40sx4": 3200,
    "l40sx8": 6500,
    "a100-large": 1000,
}
"""GB of disk by the Hub's name of a machine, as its documentation of Spaces' hardware gives them; the others are not
stated there, and are not checked."""

OTHER_NAMES = {"t4-medium": ("t4", 1), "a10g-large": ("a10g", 1)}

CPU = ("cpu", "cpu-basic", "cpu-upgrade")
"""Machines without a GPU: memory is not checked, and hours are not estimated."""


@dataclass(frozen=True)
class Machine:
    """A number of equal GPUs on one machine, or a machine without GPUs."""

    name: str
    gpu: GpuType | None
    count: int
    flavor: str | None
    """The Hub's name; None when the Hub does not rent this size."""
    dollars_an_hour: float | None


def machine(name: str) -> Machine | None:
    """Parse `a100x4`, `a100-large` or `cpu`; None for an unknown name.

    >>> machine("a100x4").dollars_an_hour, machine("a100-large").name, machine("a100x2").flavor
    (10.0, 'a100x1', None)
    """
    if name in CPU:
        return Machine(name, None, 1, name if name != "cpu" else "cpu-basic", None)
    by_flavor = OTHER_NAMES | {flavor: key for key, (flavor, _) in HUB.items()}
    found = re.fullmatch(r"([a-z0-9]+?)(?:x([1-9][0-9]?))?", name)
    if name in by_flavor:
        kind, count = by_flavor[name]
    elif found and found[1] in GPUS:
        kind, count = found[1], int(found[2] or 1)
    else:
        return None
    flavor, price = HUB.get((kind, count), (None, None))
    return Machine(f"{kind}x{count}", GPUS[kind], count, flavor, price if price is not None else _price(kind, count))


def cheapest_with_disk(size: float) -> str | None:
    """Name the cheapest machine of the Hub whose stated disk holds `size` bytes; one without a GPU comes first."""
    prices = dict(HUB.values())
    fitting = [flavor for flavor, gb in DISK.items() if gb * 1e9 >= size]
    return min(fitting, key=lambda flavor: prices.get(flavor, 0.0), default=None)


def _price(kind: str, count: int) -> float | None:
    """Estimate the price of a size that the Hub does not rent, from its single GPU."""
    one = HUB.get((kind, 1))
    return one[1] * count if one else None


def machine_names() -> list[str]:
    """List the values of `run_on`, for errors and help."""
    return [*(f"{kind}x{count}" for kind, count in HUB), "a100x2", "h100x1", "h100x4", "h100x8", *CPU]
