"""Make a stage on a Slurm cluster: a script that a person can read, submitted by sbatch and waited for."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from medllm.errors import LaunchError
from medllm.hub import Artifact
from medllm.pipeline import Bench, Item, Plan
from medllm.recipe.reference import Stage

TEMPLATE = """#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --output={log}
#SBATCH --time={time}
#SBATCH --ntasks=1
{devices}# Written by `medllm run --on slurm`. No token is in here: sbatch hands on its environment.
set -euo pipefail
{python} -c 'from medllm.cli import main; main()' run {recipe} {stage} \\
  --hub {hub} --work {work} --keep-every 600 --yes
"""
TIME = "2-00:00:00"
"""Limit of one job; what was made until then is kept, and the same command goes on from there."""
LAST_LINES = 15


def launch(plan: Plan, item: Item, made: dict[Stage, Artifact], bench: Bench) -> None:
    """Write the script, submit it and wait for its end."""
    if shutil.which("sbatch") is None:
        raise LaunchError("--on slurm: there is no `sbatch` here. Run this on a login node of the cluster.")
    script = write_script(plan, item, bench)
    recipe = plan.recipe.folder.resolve() / f".slurm-{item.stage}-{item.digest[:12]}.yaml"
    recipe.write_text(yaml.safe_dump(plan.recipe.tree, allow_unicode=True, sort_keys=False), encoding="utf-8")
    # The last words of an earlier job are none of this one's.
    script.with_suffix(".log").unlink(missing_ok=True)
    bench.say(f"{item.stage}: submitting {script}")
    environment = {**os.environ, "HF_TOKEN": bench.hub.token or ""}
    try:
        done = subprocess.run(
            ["sbatch", "--wait", "--parsable", str(script)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    except KeyboardInterrupt:
        raise LaunchError(
            f"{item.stage}: its job goes on without us. Follow it by `squeue --me`, stop it by `scancel`, and run the "
            "same command when it is done."
        ) from None
    finally:
        recipe.unlink(missing_ok=True)
    if done.returncode:
        raise LaunchError(f"{item.stage}: the job ended with code {done.returncode}.{_last_words(script, done.stderr)}")


def write_script(plan: Plan, item: Item, bench: Bench) -> Path:
    """Write the script beside the work; it names no token."""
    folder = (bench.work / plan.recipe.name).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / f"{item.stage}-{item.digest[:12]}.sbatch"
    recipe = plan.recipe.folder.resolve() / f".slurm-{item.stage}-{item.digest[:12]}.yaml"
    script.write_text(
        TEMPLATE.format(
            name=f"medllm-{item.stage}",
            log=script.with_suffix(".log"),
            time=TIME,
            devices=_devices(getattr(item.settings, "run_on", None)),
            python=shlex.quote(sys.executable),
            recipe=shlex.quote(str(recipe)),
            stage=item.stage,
            hub=shlex.quote(bench.hub.endpoint),
            work=shlex.quote(str(bench.work.resolve())),
        ),
        encoding="utf-8",
    )
    return script


def _devices(run_on: str | None) -> str:
    """`a100x4` as Slurm asks for it; a machine without GPUs asks for none."""
    found = re.fullmatch(r"([a-z]+\d+[a-z]*)(?:x(\d+))?", run_on or "")
    return f"#SBATCH --gpus={found[1]}:{found[2] or 1}\n" if found else ""


def _last_words(script: Path, told: str) -> str:
    log = script.with_suffix(".log")
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:] if log.is_file() else [told]
    return " Its last words:\n" + "\n".join(f"  {line}" for line in lines)
