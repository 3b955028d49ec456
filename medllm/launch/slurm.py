"""Make a stage on a Slurm cluster: a readable script, submitted once, followed, and requeued at its time limit."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import yaml

from medllm.errors import LaunchError
from medllm.hub import Artifact
from medllm.pipeline import BuildContext, BuildPlan, StagePlan
from medllm.recipe.base import Stage
from medllm.recipe.cost import weight_bytes
from medllm.recipe.hardware import shape_if_known
from medllm.recipe.servers import AUTO, LOCAL, TRANSFORMERS

TEMPLATE = """#!/bin/bash
{options}
# Written by `medllm run --on slurm`. No token is in here: sbatch hands on its environment.
set -uo pipefail
stopped=0
trap 'stopped=1; kill -USR1 "${{!:-}}" 2>/dev/null' USR1
{setting}{python} -c 'from medllm.cli import main; main()' run {recipe} {stage} \\
  --hub {hub} --work {work} --keep-every 600 --yes &
run=$!
wait "$run"; code=$?
while kill -0 "$run" 2>/dev/null; do wait "$run"; code=$?; done  # a signal interrupts a wait
if [ "$code" -ne 0 ] && [ "$stopped" -eq 1 ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {tries} ]; then
  echo "medllm: the time limit is near: what was made is kept, and the job is queued again"
  scontrol requeue "$SLURM_JOB_ID" && exit 0
fi
echo "$code" > {code}
exit "$code"
"""
TRIES = 20
"""How often one job is queued again at its time limit."""
BEFORE_THE_LIMIT = 600
"""Seconds before the time limit at which Slurm signals the stage to save."""
LAST_LINES = 15
LOOKS = 2.0
"""Seconds between two checks of the queue."""
TRAININGS = ("cpt", "sft", "rpo", "rounds", "grpo")
HERE = (LOCAL, TRANSFORMERS, AUTO)
"""The engines that answer in processes of the run, on every node."""
LOADING = ("cpt", "teach", "sft", "preferences", "rpo", "rounds", "grpo", "merge", "evaluate")
"""The stages that read the base's weights."""
LEAST_MEMORY = 16e9


def launch(plan: BuildPlan, item: StagePlan, made: dict[Stage, Artifact], bench: BuildContext) -> None:
    """Follow the job that an earlier run submitted, or write the script and submit it; return when it has ended."""
    if shutil.which("sbatch") is None:
        raise LaunchError("launch.no-sbatch", "--on slurm: `sbatch` not found. Run this on a Slurm login node.")
    script, recipe = _places(plan, item, bench)
    job = _queued(item)
    if job:
        bench.say(f"{item.stage}: following job {job}, which an earlier run submitted")
    else:
        write_script(plan, item, bench)
        recipe.write_text(yaml.safe_dump(plan.recipe.tree, allow_unicode=True, sort_keys=False), encoding="utf-8")
        # The exit code of an earlier job is not that of this one.
        for old in (script.with_suffix(".log"), script.with_suffix(".code")):
            old.unlink(missing_ok=True)
        job = _submit(item, script, recipe, bench)
        bench.say(f"{item.stage}: submitted as job {job} ({script})")
    try:
        for line in _followed(job, script.with_suffix(".log")):
            bench.say(f"{item.stage} | {line.replace(bench.hub.token or chr(0), '***')}")
    except KeyboardInterrupt:
        raise LaunchError(
            "launch.continues-alone",
            f"{item.stage}: job {job} continues without this run. Run the same command to follow it again; stop it "
            f"with `scancel {job}`.",
        ) from None
    recipe.unlink(missing_ok=True)
    _judge(item, job, script)


def job_name(item: StagePlan) -> str:
    """Return the job's name in the queue: the same for the same stage with the same settings and inputs."""
    return f"medllm-{item.stage}-{item.digest[:12]}"


def _places(plan: BuildPlan, item: StagePlan, bench: BuildContext) -> tuple[Path, Path]:
    """Return the path of the script, beside the work, and of its recipe, beside the folders that the recipe names."""
    folder = (bench.work / plan.recipe.name).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{item.stage}-{item.digest[:12]}"
    return folder / f"{name}.sbatch", plan.recipe.folder.resolve() / f".slurm-{name}.yaml"


def write_script(plan: BuildPlan, item: StagePlan, bench: BuildContext) -> Path:
    """Write the script beside the work; the script holds no token."""
    script, recipe = _places(plan, item, bench)
    spread = item.stage in TRAININGS or getattr(item.settings, "engine", None) in HERE
    nodes = plan.recipe.slurm.nodes if spread else 1
    script.write_text(
        TEMPLATE.format(
            options="\n".join(f"#SBATCH {option}" for option in _options(plan, item, script, nodes)),
            setting=f"MEDLLM_NODES={nodes} " if nodes > 1 else "",
            python=shlex.quote(sys.executable),
            recipe=shlex.quote(str(recipe)),
            stage=item.stage,
            hub=shlex.quote(bench.hub.endpoint),
            work=shlex.quote(str(bench.work.resolve())),
            tries=TRIES,
            code=shlex.quote(str(script.with_suffix(".code"))),
        ),
        encoding="utf-8",
    )
    return script


def _options(plan: BuildPlan, item: StagePlan, script: Path, nodes: int) -> Iterator[str]:
    asked = plan.recipe.slurm
    yield f"--job-name={job_name(item)}"
    yield f"--output={script.with_suffix('.log')}"
    yield "--open-mode=append"
    yield f"--time={asked.time}"
    yield f"--nodes={nodes}"
    yield "--ntasks-per-node=1"
    yield f"--cpus-per-task={asked.cpus}"
    yield f"--mem={asked.mem or memory(plan, item)}"
    if devices := _devices(getattr(item.settings, "run_on", None), nodes, asked.gres):
        yield devices
    if asked.partition:
        yield f"--partition={asked.partition}"
    yield "--requeue"
    yield f"--signal=B:USR1@{BEFORE_THE_LIMIT}"
    yield from asked.extra


def memory(plan: BuildPlan, item: StagePlan) -> str:
    """Return the main memory that a stage needs to read the base: weights in 16 bits plus a quarter, at least 16G."""
    shape = shape_if_known(plan.recipe.base or "", plan.recipe.folder) if item.stage in LOADING else None
    size = weight_bytes(shape, "none", "bfloat16") * 1.25 if shape else 0.0
    return f"{max(size, LEAST_MEMORY) / 1e9:.0f}G"


def _devices(run_on: str | None, nodes: int, gres: str | None) -> str | None:
    """Translate `a100x4` into Slurm's option for each node; a machine without GPUs asks for none."""
    match = re.fullmatch(r"([a-z]+\d+[a-z]*)(?:x(\d+))?", run_on or "")
    if not match:
        return None
    if gres:
        return f"--gres={gres}"
    return f"--gpus{'-per-node' if nodes > 1 else ''}={match[1]}:{match[2] or 1}"


def _queued(item: StagePlan) -> str | None:
    """Return the number of the stage's job if one waits or runs."""
    done = _ask("squeue", "--me", "--noheader", "--format=%i %T", f"--name={job_name(item)}")
    lines = [line.split(maxsplit=1) for line in done.splitlines() if len(line.split()) > 1]
    return next((number for number, state in lines if state != "COMPLETING"), None)


def _submit(item: StagePlan, script: Path, recipe: Path, bench: BuildContext) -> str:
    environment = {**os.environ, "HF_TOKEN": bench.hub.token or ""}
    command = ["sbatch", "--parsable", str(script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        recipe.unlink(missing_ok=True)
        message = done.stderr.strip().replace("\n", "\n  ")
        raise LaunchError(
            "launch.sbatch-refused",
            f"{item.stage}: sbatch refused the job with code {done.returncode}. Change `slurm:` in the recipe. Its "
            f"message:\n  {message}",
        )
    return done.stdout.strip().partition(";")[0]


def _followed(job: str, log: Path) -> Iterator[str]:
    """Yield the lines of the log as they come, until the job is no longer in the queue."""
    seen, rest = 0, ""
    while True:
        state = _state(job)
        if log.is_file():
            with log.open("rb") as file:
                file.seek(seen)
                data = file.read()
            seen += len(data)
            *lines, rest = (rest + data.decode("utf-8", "replace")).split("\n")
            yield from lines
        if state is None:
            if rest:
                yield rest
            return
        time.sleep(LOOKS)


def _state(job: str) -> str | None:
    """Return the job's state in the queue; None when it has ended. Ask a controller that does not answer again."""
    for _ in range(30):
        done = subprocess.run(
            ["squeue", "--noheader", "--format=%T", f"--jobs={job}"], capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            return next(iter(done.stdout.split()), None)
        if "Invalid job id" in done.stderr:
            return None
        time.sleep(LOOKS)
    raise LaunchError(
        "launch.squeue-silent",
        f"job {job}: squeue does not answer ({done.stderr.strip()}). Run the same command to follow the job.",
    )


def _judge(item: StagePlan, job: str, script: Path) -> None:
    """Raise LaunchError unless the script has recorded exit code 0."""
    code = script.with_suffix(".code")
    text = code.read_text("utf-8").strip() if code.is_file() else None
    if text == "0":
        return
    if text is None:
        state = re.search(r"JobState=(\S+)(?: Reason=(\S+))?", _ask("scontrol", "show", "job", job))
        ended = f"ended as {state[1]}" if state else "ended"
        raise LaunchError(
            "launch.job-ended-early",
            f"{item.stage}: job {job} {ended} before it could report why (time limit, memory or scancel). Its work is "
            f"kept; run again to continue.{_end_of_log(script)}",
        )
    raise LaunchError(
        "launch.job-failed",
        f"{item.stage}: the job ended with code {text}. Mend what its log names and run again.{_end_of_log(script)}",
    )


def _ask(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _end_of_log(script: Path) -> str:
    log = script.with_suffix(".log")
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:] if log.is_file() else []
    return " The end of the log:\n" + "\n".join(f"  {line}" for line in lines) if lines else ""
