"""Make a stage as a Job on the Hub: our own script, always a time limit, work kept on the Hub, logs streamed here."""

import base64
import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from huggingface_hub import HfApi, JobInfo

import medllm
from medllm.errors import LaunchError
from medllm.generation.serving import PROGRAM as VLLM_PROGRAM
from medllm.hub import Artifact, Hub, digest_of_folder
from medllm.hub.push import branch_of, push_once_tagged
from medllm.pipeline import BuildContext, BuildPlan, StagePlan
from medllm.recipe.base import Stage
from medllm.recipe.cost import disk_bytes
from medllm.recipe.hardware import HUB as RENTED
from medllm.recipe.hardware import cheapest_with_disk, shape_if_known
from medllm.recipe.rounds import parts_of
from medllm.recipe.servers import is_vllm
from medllm.recipe.training import NAMED, Training

SCRIPT = Path(__file__).parent / "job_script.py"
ENDED = ("COMPLETED", "CANCELED", "ERROR", "DELETED")
EXTRAS = {"corpus": ("train", "curate"), "space": ("space",)}
"""The extras that a stage needs; the other stages need `train`."""


@dataclass(frozen=True)
class HubJobs:
    """Settings for Jobs; a field that is None takes the value in the recipe's `jobs`."""

    timeout: str | None = None
    """Time limit of a Job; the Hub's default is 30 minutes. Work done until then is kept and resumed."""
    tries: int | None = None
    """Maximum number of Jobs for one stage; each must get further than the one before."""
    keep_every: float = 600
    """Seconds between two pushes of unfinished work."""
    script: Path = SCRIPT
    """The script that the Job runs."""

    def launch(self, plan: BuildPlan, item: StagePlan, made: dict[Stage, Artifact], bench: BuildContext) -> None:
        """Send Jobs until the stage is made; follow a Job of an earlier run that still runs, do not send a second."""
        refuse_local(item, bench.hub)
        tries = self.tries or plan.recipe.jobs.tries
        for _ in range(tries):
            before = _kept_at(bench.hub, item)
            job = _running(plan, item, bench) or self._send(plan, item, bench)
            job = _follow(job, item, bench)
            stage = job.status.stage if job.status else "DELETED"
            if stage == "COMPLETED" or bench.hub.find(item.repo_id, item.kind, item.digest):
                return

            if stage == "CANCELED" or _kept_at(bench.hub, item) == before:
                raise LaunchError(
                    "launch.job-without-progress",
                    f"{item.stage}: the Job {job.id} ended as {stage}{_message(job)} and kept no new work. Look into "
                    f"its log (hf jobs logs {job.id}), and run again.",
                )
            bench.say(
                f"{item.stage}: the Job {job.id} ended as {stage}{_message(job)}; sending another that resumes the "
                "kept work"
            )
        raise LaunchError(
            "launch.jobs-used-up",
            f"{item.stage}: {tries} Jobs did not finish the stage. Their work is kept; run again to resume it.",
        )

    def _send(self, plan: BuildPlan, item: StagePlan, bench: BuildContext) -> JobInfo:
        hub = bench.hub
        code = push_package(hub, plan.recipe.owner)
        flavor = flavor_of(item, plan)
        timeout = self.timeout or plan.recipe.jobs.timeout
        env = {
            "MEDLLM_RECIPE": base64.b64encode(yaml.safe_dump(plan.recipe.tree, allow_unicode=True).encode()).decode(),
            "MEDLLM_FOLDER": str(plan.recipe.folder.resolve()) if is_here(hub) else "",
            "MEDLLM_STAGE": item.stage,
            "MEDLLM_CODE": str(code),
            "MEDLLM_KEEP_EVERY": str(self.keep_every),
            "HF_ENDPOINT": hub.endpoint,
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            **carried(item, plan, hub),
            **where_vllm_is(item, plan, hub),
        }
        job = hub.call(
            f"{item.stage} as a Job on {flavor}",
            lambda api: _sent(
                api,
                str(self.script),
                dependencies=[*dependencies(item.stage), *plan.recipe.jobs.packages],
                image=plan.recipe.jobs.image,
                env=env,
                secrets={"HF_TOKEN": hub.token or ""},
                flavor=flavor,
                timeout=timeout,
                name=f"medllm-{item.stage}-{item.digest[:12]}",
                labels={"medllm": item.digest[:12]},
                namespace=plan.recipe.owner,
            ),
        )
        bench.say(f"{item.stage}: sent as Job {job.id} on {flavor}, for at most {timeout} ({job.url})")
        return job


launch = HubJobs().launch


def _sent(api: HfApi, script: str, **more: Any) -> JobInfo:  # noqa: ANN401  the client's own keywords
    job: JobInfo = api.run_uv_job(script, **more)
    return job


def refuse_local(item: StagePlan, hub: Hub) -> None:
    """Raise LaunchError for folders of this machine that a Job cannot see."""
    folders = [source.reference for source in item.inputs if source.repo_id is None]
    if folders and not is_here(hub):
        raise LaunchError(
            "launch.local-folder",
            f"{item.stage}: {', '.join(folders)} is in a local folder, which no Job can see. Push it "
            "(`hf upload ORG/NAME FOLDER`) and write ORG/NAME@REVISION in the recipe.",
        )


def is_here(hub: Hub) -> bool:
    """Return whether the Hub is this machine, so that its Jobs see our folders."""
    return urlsplit(hub.endpoint).hostname in ("127.0.0.1", "localhost", "::1")


def carried(item: StagePlan, plan: BuildPlan, hub: Hub) -> dict[str, str]:
    """Read the accelerate config beside the recipe, so that the Job writes it beside its own copy of the recipe."""
    name = next((part.accelerate for part in parts_of(item.settings) if isinstance(part, Training)), None)
    if name is None or name in NAMED:
        return {}
    file = plan.recipe.folder / name
    if is_here(hub) and file.is_file():  # the Job sees our folders
        return {}
    if Path(name).is_absolute() or ".." in Path(name).parts or not file.is_file():
        raise LaunchError(
            "training.no-accelerate-config",
            f"{item.stage}.accelerate: there is no {name} beside the recipe, and a Job sees no other folder of this "
            f"machine. Write {' or '.join(NAMED)}, or put the file beside the recipe.",
        )
    return {"MEDLLM_ACCELERATE": base64.b64encode(file.read_bytes()).decode(), "MEDLLM_ACCELERATE_AT": name}


def where_vllm_is(item: StagePlan, plan: BuildPlan, hub: Hub) -> dict[str, str]:
    """Return the variable by which a Job finds vLLM: as here on this machine, else in its image, else installed by uv.

    A Job that is sent for `engine: vllm` has no other place to have it from, and uv is on every machine of the Hub.
    """
    if not any(is_vllm(str(getattr(part, "engine", ""))) for part in parts_of(item.settings)):
        return {}
    if is_here(hub):
        return {VLLM_PROGRAM: os.environ[VLLM_PROGRAM]} if VLLM_PROGRAM in os.environ else {}
    return {} if plan.recipe.jobs.image else {VLLM_PROGRAM: "uv"}


def flavor_of(item: StagePlan, plan: BuildPlan | None = None) -> str:
    """Return the Hub's name for the machine that the recipe asks for.

    For `a100x2` in a recipe the next larger size is taken: the Hub rents out such GPUs by one, four or eight. A
    merge without `run_on` gets the cheapest machine whose disk holds base and merged model.
    """
    asked = getattr(item.settings, "run_on", None)
    if asked is None and item.stage == "merge" and plan is not None:
        shape = shape_if_known(plan.recipe.base or "", plan.recipe.folder)
        need = disk_bytes(shape, "merge", getattr(item.settings, "dtype", "bfloat16")) if shape else 0.0
        return cheapest_with_disk(need) or "cpu-basic"
    asked = asked or "cpu-basic"
    match = re.fullmatch(r"([a-z]+\d+[a-z]*)(?:x(\d+))?", asked)
    if not match:
        return str(asked)
    sizes = sorted((count, name) for (gpu, count), (name, _) in RENTED.items() if gpu == match[1])
    return next((name for count, name in sizes if count >= int(match[2] or 1)), str(asked))


def dependencies(stage: str) -> list[str]:
    """List the libraries of this environment with their versions, so that a Job computes with what was tested here."""
    wanted = EXTRAS.get(stage, ("train",))
    names = []
    for line in requires("medllm") or ():
        name = re.match(r"[\w.-]+", line)
        extra = re.search(r"extra == ['\"](\w+)['\"]", line)
        if name and (extra is None or extra[1] in wanted):
            with suppress(PackageNotFoundError):
                names.append(f"{name[0]}=={version(name[0]).partition('+')[0]}")
    return list(dict.fromkeys(names))


def _running(plan: BuildPlan, item: StagePlan, bench: BuildContext) -> JobInfo | None:
    label = {"medllm": item.digest[:12]}
    jobs: Iterable[JobInfo] = bench.hub.call(
        "Jobs", lambda api: list(api.list_jobs(labels=label, namespace=plan.recipe.owner))
    )
    running = next((job for job in jobs if job.status and job.status.stage not in ENDED), None)
    if running:
        bench.say(f"{item.stage}: following Job {running.id}, which an earlier run sent ({running.url})")
    return running


def _kept_at(hub: Hub, item: StagePlan) -> str | None:
    refs = hub.refs(item.repo_id, item.kind)
    heads = [ref.target_commit for ref in refs.branches if ref.name == branch_of(item.digest)] if refs else []
    return heads[0] if heads else None


def _follow(job: JobInfo, item: StagePlan, bench: BuildContext) -> JobInfo:
    """Stream the log until the Job ends; an interrupt does not end the Job."""
    owner = job.owner.name if job.owner else None
    try:
        for line in bench.hub.api.fetch_job_logs(job_id=job.id, namespace=owner, follow=True):
            bench.say(f"{item.stage} | {_clean(line, bench.hub)}")
        return bench.hub.call(f"Job {job.id}", lambda api: api.wait_for_job(job_id=job.id, namespace=owner))
    except KeyboardInterrupt:
        raise LaunchError(
            "launch.continues-alone",
            f"{item.stage}: the Job {job.id} continues without this run. Run the same command to follow it again; "
            f"stop it with `hf jobs cancel {job.id}`.",
        ) from None


def _clean(line: str, hub: Hub) -> str:
    return line.replace(hub.token, "***") if hub.token else line


def _message(job: JobInfo) -> str:
    return f" ({job.status.message})" if job.status and job.status.message else ""


TEMPLATES = ("model_card", "dataset_cards")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc")


def push_package(hub: Hub, namespace: str) -> Artifact:
    """Push the package unless the Hub already holds it, byte for byte, under the tag of its content."""
    package = Path(medllm.__file__).parent
    with tempfile.TemporaryDirectory() as aside:
        folder = Path(aside) / "code"
        shutil.copytree(package, folder / "medllm", ignore=LEFT_OUT)
        for name in TEMPLATES:
            if (package.parent / name).is_dir():
                shutil.copytree(package.parent / name, folder / name, ignore=LEFT_OUT)
        tag = "code-" + digest_of_folder(folder).removeprefix("sha256:")[:12]
        return push_once_tagged(hub, folder, f"{namespace}/medllm-code", "dataset", tag)
