"""The first hour on a machine with GPUs: run each check and benchmark, and write one file of results to send back.

Run: python tools/gpu_report.py [--out runs/gpu-report.json] [--only NAME ...] [--list]
docs/gpu-first-hour.md says what each step must show. The file names no user, host, path or token.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).parent.parent
NO_GPU = (
    "medllm: no GPU here: nothing was measured and no report is written. Run `make gpu-report` on a machine with GPUs "
    "(docs/gpu-first-hour.md)."
)
LIBRARIES = ("torch", "transformers", "peft", "trl", "accelerate", "bitsandbytes", "flash-attn", "kernels")
COUNT = (
    "import json, torch; print(json.dumps([[p.name, p.total_memory] for p in (torch.cuda.get_device_properties(n) "
    "for n in range(torch.cuda.device_count()))] + [[torch.version.cuda or torch.version.hip, 0]]))"
)
SECRET = re.compile(r"hf_[A-Za-z0-9]{8,}|sk-[A-Za-z0-9_-]{16,}")
LINES = 60
"""Last lines of a step that are kept."""


@dataclass(frozen=True)
class Step:
    """One command of the first hour."""

    name: str
    words: tuple[str, ...]
    seconds: int
    """Its time limit."""
    gpus: int = 1
    """Left out where there are fewer."""


def steps() -> list[Step]:
    """What is run, in this order: what fails early saves the hour."""
    shapes = ("benchmarks/shapes.py",)
    tests = ("-m", "pytest", "-q", "-rA", "--reruns", "0", "-p", "no:cacheprovider")
    large = ("Qwen/Qwen2.5-72B", "--quantization", "nf4")
    return [
        Step("one GPU: trainings and flash attention", (*tests, "tests/gpu/test_cuda.py"), 900),
        Step("0.5B on one GPU", (*shapes, "Qwen/Qwen2.5-0.5B", "--gpus", "1"), 600),
        Step(
            "0.5B, the reference at 2,560 tokens",
            (*shapes, "Qwen/Qwen2.5-0.5B", "--gpus", "1", "--length", "2560"),
            600,
        ),
        Step("7B on one GPU", (*shapes, "Qwen/Qwen2.5-7B", "--gpus", "1"), 1200),
        Step("8 blocks of 72B in NF4", (*shapes, *large, "--layers", "8", "--gpus", "1"), 1200),
        Step("16 blocks of 72B in NF4", (*shapes, *large, "--layers", "16", "--gpus", "1"), 1800),
        Step("two and four GPUs learn what one learns", (*tests, "tests/gpu/test_several.py"), 3600, gpus=2),
        Step("0.5B on all GPUs", (*shapes, "Qwen/Qwen2.5-0.5B"), 600, gpus=2),
        Step("8 blocks of 72B in NF4 on all GPUs", (*shapes, *large, "--layers", "8"), 1800, gpus=2),
    ]


def gpus() -> tuple[list[tuple[str, int]], str | None]:
    """The GPUs with the bytes of their memory, and the version of CUDA or ROCm; counted by another process."""
    done = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True, check=False)
    try:
        *found, (driver, _) = json.loads(done.stdout)
    except ValueError:
        return [], None
    return [(str(name), int(size)) for name, size in found], driver


def machine(found: list[tuple[str, int]], driver: str | None) -> dict[str, object]:
    """The machine and its libraries, without a name that tells whose it is."""
    versions: dict[str, str | None] = {}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": git.stdout.strip() or None,
        "gpus": [{"name": name, "memory_gb": round(size / 1e9, 1)} for name, size in found],
        "cuda": driver,
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        "libraries": versions,
    }


def cleaned(text: str) -> str:
    """The words of a step without paths of this machine, names of its user, tokens and progress bars."""
    for private, public in ((str(ROOT), "."), (str(Path.home()), "~"), (platform.node(), "HOST")):
        text = text.replace(private, public) if len(private) > 1 else text
    lines = [line.rsplit("\r", 1)[-1].rstrip() for line in SECRET.sub("***", text).splitlines()]
    return "\n".join(line for line in lines if line and "it/s]" not in line and "s/it]" not in line)


def run(step: Step) -> dict[str, object]:
    """Run a step to its end or its limit."""
    began = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, *step.words], cwd=ROOT, capture_output=True, text=True, check=False, timeout=step.seconds,
            env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        code, text = done.returncode, done.stdout + "\n" + done.stderr
    except subprocess.TimeoutExpired as late:
        code = 124
        text = "".join(
            part.decode("utf-8", "replace") for part in (late.stdout, late.stderr) if isinstance(part, bytes)
        )
    return {
        **asdict(step),
        "words": ["python", *step.words],
        "took": round(time.monotonic() - began, 1),
        "code": code,
        "told": cleaned(text).splitlines()[-LINES:],
    }


def main() -> int:
    """Run everything and write the report after each step, so that an hour cut short is not lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "gpu-report.json")
    parser.add_argument("--only", nargs="*", help="steps by their names")
    parser.add_argument("--list", action="store_true", help="name the steps and run none")
    given = parser.parse_args()
    if given.list:
        for step in steps():
            print(f"{step.name}: python {' '.join(step.words)}")
        return 0
    found, driver = gpus()
    if not found:
        sys.stderr.write(NO_GPU + "\n")
        return 1
    chosen = [step for step in steps() if not given.only or step.name in given.only]
    report: dict[str, object] = {"machine": machine(found, driver), "steps": []}
    made: list[dict[str, object]] = []
    given.out.parent.mkdir(parents=True, exist_ok=True)
    for step in chosen:
        if step.gpus > len(found):
            made.append({**asdict(step), "code": None, "told": [f"left out: needs {step.gpus} GPUs"]})
        else:
            print(f"medllm: {step.name} (at most {step.seconds} s)", flush=True)
            made.append(run(step))
            print(f"medllm: {step.name}: code {made[-1]['code']} after {made[-1]['took']} s", flush=True)
        report["steps"] = made
        given.out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    failed = [str(one["name"]) for one in made if one["code"] not in (0, None)]
    print(f"medllm: written {given.out}; of {len(made)} steps failed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
