"""The preflight of a run: what is local or small is opened before the first stage, and the disk is measured."""

import shutil
import socket
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from medllm.errors import HubError, ModelError
from medllm.generation.factory import key_of
from medllm.hub import Artifact, Hub
from medllm.pipeline.plan import BuildPlan, StagePlan
from medllm.pipeline.progress import format_bytes
from medllm.preflight import inspect, refuse_all
from medllm.recipe import Recipe, local_sources, uses
from medllm.recipe.base import Stage
from medllm.recipe.cost import weight_bytes
from medllm.recipe.dependencies import Host, allows, hosts_of
from medllm.recipe.errors import RecipeFault
from medllm.recipe.hardware import Shape, shape_if_known
from medllm.recipe.settings import ApiModel
from medllm.weights.loadable import SMALL

PATIENCE = 5.0
"""Seconds that a server may take to accept a connection."""


def check_before_work(plans: Iterable[BuildPlan], hub: Hub, work: Path, *, here: bool) -> None:
    """Refuse, all faults at once, what a stage would stumble over later; `here`: the stages run on this machine.

    Exams of the Hub are pulled and read. Of models of the Hub only the small files are; texts of the Hub are read when
    the corpus is built.
    """
    for plan in plans:
        if not plan.missing:
            continue
        stages = [item.stage for item in plan.missing]
        sources = local_sources(plan.recipe, stages)
        listed: dict[str, frozenset[str]] = {}
        for item in plan.missing:
            _add_hub_sources(plan, item, hub, sources, listed)
        findings = inspect(plan.recipe, stages, sources, listed=listed, thorough=True)
        findings += _private_exams(plan, hub)
        if here:
            findings += [*_disk(plan, hub, work), *_keys(plan), *_servers(plan)]
        refuse_all(plan.recipe, findings)


def _add_hub_sources(
    plan: BuildPlan, item: StagePlan, hub: Hub, sources: dict[str, Path], listed: dict[str, frozenset[str]]
) -> None:
    """Pull the exams and the small files of the models that a stage reads from the Hub."""
    inputs = {source.reference: source for source in item.inputs}
    for use in uses(plan.recipe, item.stage):
        source = inputs.get(use.source)
        outside = source is not None and source.repo_id and source.kind and source.commit and not source.digest
        if source is None or not outside or use.source in sources or use.only:
            continue
        artifact = Artifact(str(source.repo_id), source.kind or "model", str(source.commit))
        if use.wanted == "exam":
            sources[use.source] = hub.pull(artifact)
        elif use.wanted == "model":
            state = hub.state_at(artifact.repo_id, artifact.kind, artifact.revision)
            if state is None:
                raise HubError("hub.source-gone", f"{artifact}: it was there a moment ago and is gone. Run again.")
            if "adapter_config.json" in state.files and "config.json" not in state.files:
                sources[use.source] = hub.pull(artifact)
            else:
                listed[use.source] = state.files
                sources[use.source] = hub.pull(artifact, SMALL)


def _private_exams(plan: BuildPlan, hub: Hub) -> Iterable[RecipeFault]:
    """The results hold the questions, so those of a private exam are pushed only to a Hub that it allows."""
    missing, recipe = {item.stage for item in plan.missing}, plan.recipe
    asked = set(recipe.evaluate.benchmarks) if recipe.evaluate and "evaluate" in missing else set()
    asked |= {recipe.rounds.exam} if recipe.rounds and "rounds" in missing else set()
    for name, exam in recipe.exams.items() if recipe.namespace is not None else ():
        if name in asked and not allows(exam, hub.endpoint):
            text = (
                f"`{name}` is private, and its questions would be pushed to {hub.endpoint} with the results. Use a Hub "
                "of this machine (--hub DIR), or name that host under `allowed_hosts`."
            )
            yield RecipeFault("stage.private-exam", f"exams.{name}", text)


def _keys(plan: BuildPlan) -> Iterable[RecipeFault]:
    """The variables that hold the servers' keys are set."""
    missing = {item.stage for item in plan.missing}
    evaluate, teach = plan.recipe.evaluate, plan.recipe.teach
    asked = evaluate.models if evaluate and "evaluate" in missing else {}
    models = {f"evaluate.models.{name}": model for name, model in asked.items()}
    if teach and "teach" in missing:
        models["teach.model"] = teach.model
    for place, model in models.items():
        if isinstance(model, ApiModel):
            try:
                key_of(model, place)
            except ModelError as error:
                yield RecipeFault(error.code, place, str(error))


def _servers(plan: BuildPlan) -> Iterable[RecipeFault]:
    """The servers of the stage that comes first accept a connection; for a later stage one may still be started."""
    first = plan.missing[0].stage
    for host in hosts_of(plan.recipe):
        if host.place.startswith(f"{first}.") and (reason := _unreachable(host)):
            text = f"{host.address} cannot be reached ({reason}). Start the server, or correct its address."
            yield RecipeFault("generation.server-not-reachable", host.place, text)


def _unreachable(host: Host) -> str | None:
    """Open a connection and close it, and send nothing; a server behind a proxy is not tried."""
    if getproxies().get(urlsplit(host.address).scheme) and not proxy_bypass(host.hostname):
        return None
    try:
        socket.create_connection((host.hostname, host.port), timeout=PATIENCE).close()
    except OSError as fault:
        return fault.strerror or str(fault) or type(fault).__name__
    return None


def _disk(plan: BuildPlan, hub: Hub, work: Path) -> list[RecipeFault]:
    """Compare what a download of the base and a merge write with what is free, disk by disk."""
    shape = shape_if_known(plan.recipe.base or "", plan.recipe.folder)
    if shape is None:
        return []
    needs: dict[int, list[tuple[str, Path, float]]] = {}
    for what, path, size in _written(plan, hub, work, shape):
        place = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
        needs.setdefault(place.stat().st_dev, []).append((what, place, size))
    faults = []
    for parts in needs.values():
        free, needed = shutil.disk_usage(parts[0][1]).free, sum(size for _, _, size in parts)
        if needed > free:
            listed = ", ".join(f"{what} about {format_bytes(size)}" for what, _, size in parts)
            text = (
                f"the disk of {parts[0][1]} has {format_bytes(free)} free, and {format_bytes(needed)} are needed "
                f"there: {listed}. Free some, or name other places with --work and HF_HOME."
            )
            faults.append(RecipeFault("stage.no-room", "base", text))
    return faults


def _written(plan: BuildPlan, hub: Hub, work: Path, shape: Shape) -> Iterable[tuple[str, Path, float]]:
    """List what will be written: the base's download, and the merged model once and on a local Hub once more."""
    base = next((source for item in plan.items for source in item.inputs if source.reference == "base"), None)
    if base is not None and base.repo_id and _loads_base(plan.recipe, [item.stage for item in plan.missing]):
        cache = hub.cache_folder(base.repo_id, "model")
        here = sum(path.stat().st_size for path in cache.glob("blobs/*") if path.is_file()) if cache.is_dir() else 0
        yield "the base's download", cache, max(0.0, weight_bytes(shape, "none", "bfloat16") - here)
    merge = plan.recipe.merge
    if merge and any(item.stage == "merge" for item in plan.missing):
        size = weight_bytes(shape, "none", merge.dtype)
        yield "the merged model", work, size
        if Path(hub.name).is_dir():
            yield "the merged model on the local Hub", Path(hub.name), size


def _loads_base(recipe: Recipe, stages: Iterable[Stage]) -> bool:
    return any(use.place == "base" for stage in stages for use in uses(recipe, stage))
