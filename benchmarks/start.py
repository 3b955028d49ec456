"""Wall time of the command line's first word: `medllm --help` and `medllm check`, as a person waits for it.

Run as `python benchmarks/start.py`. The bytecode is compiled once before, as any installation does.
"""

import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
RUNS = 15

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "medllm --help": ["-m", "medllm.cli", "--help"],
    **{
        f"medllm check {path.name}": ["-m", "medllm.cli", "check", str(path)]
        for path in sorted((ROOT / "recipes").glob("[!q]*.yaml")) + sorted((ROOT / "recipes").glob("qwen*.yaml"))
    },
}


def main() -> None:
    """Print minimum and median of several processes each."""
    for name, words in COMMANDS.items():
        times, cpu = [], []
        for _ in range(RUNS + 1):
            before, used = time.perf_counter(), _cpu()
            subprocess.run([sys.executable, *words], check=True, capture_output=True, cwd=ROOT)
            times.append(time.perf_counter() - before)
            cpu.append(_cpu() - used)
        wall, busy = times[1:], cpu[1:]
        print(f"{name:<46} wall {min(wall):.3f} s at least, {statistics.median(wall):.3f} median; ", end="")
        print(f"CPU {min(busy):.3f} s at least, {statistics.median(busy):.3f} median of {RUNS}")


def _cpu() -> float:
    # On a busy machine the wall clock measures the neighbours; this measures us.
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
