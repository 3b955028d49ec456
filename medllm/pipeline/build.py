"""The build of a plan: each missing stage in order is pulled, made, carded, pushed and tagged; a killed one resumes."""

import fcntl
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol, TextIO

from medllm.errors import HubError, MedllmError, disk_is_full
from medllm.hub import Artifact, Hub, Input, Provenance, push
from medllm.hub.push import branch_of, fetch_wip, tag_output, writable_head
from medllm.pipeline.content import content_of, equal_version
from medllm.pipeline.facts import describe_facts, read_facts
from medllm.pipeline.gate import refuse_empty
from medllm.pipeline.lineage import card_of
from medllm.pipeline.plan import BuildPlan, StagePlan
from medllm.pipeline.progress import count_bytes, format_bytes, report_pull, report_push, report_work
from medllm.pipeline.pushed import deleted_versions, drop_copy, is_local, record_push, sync_wip
from medllm.pipeline.results import restore_answers
from medllm.pipeline.space_settings import check_secrets, configure_space
from medllm.pipeline.teachers import teachers_of
from medllm.recipe.base import Settings, Stage

Maker = Callable[[Settings, dict[str, Path], Path], None]
"""A stage: folders in, one folder out."""

CPU_INFO = Path("/proc/cpuinfo")
LIBRARIES = ("medllm", "torch", "transformers", "peft", "trl", "accelerate", "bitsandbytes", "datasets", "datatrove")
"""The libraries whose versions a provenance records: a change of version can change the result of equal settings."""


@dataclass(frozen=True)
class BuildContext:
    """The Hub, the working folder and the callbacks that a build uses."""

    hub: Hub
    work: Path
    """Half-made and made outputs, by name and digest; nothing in it is needed once it is pushed."""
    say: Callable[[str], None]
    """Reports to people what is happening."""
    progress: Callable[[str], None] = lambda text: None
    """Reports how far the work is; only the latest line matters."""
    keep_every: float | None = None
    """Seconds between two pushes of half-made work; None where this machine's disk outlives the run."""


class Launcher(Protocol):
    """Gets one stage made, wherever; the tag on the Hub is the result."""

    def __call__(self, plan: BuildPlan, item: StagePlan, made: dict[Stage, Artifact], bench: BuildContext) -> None:
        """Return when the stage's output is on the Hub, or raise."""


def run(
    plan: BuildPlan, bench: BuildContext, launch: Launcher, asked: Callable[[BuildPlan], None]
) -> dict[Stage, Artifact]:
    """Build what the plan lists as missing; `asked` shows the plan and raises when people do not want it.

    A stage that is rebuilt with equal content keeps its identity: the stages below it are planned again, and exist.
    """
    restored = deleted_versions(plan, bench.hub, bench.work)
    asked(plan)
    if plan.missing:
        bench.hub.check_writable(plan.recipe.owner, [item.repo_id for item in plan.missing])
    if any(item.stage == "space" for item in plan.missing):
        check_secrets(plan.recipe)
    made: dict[Stage, Artifact] = {}
    for number in range(len(plan.items)):
        item = plan.items[number]
        standing = _standing(item, bench)
        deleted = None if standing else deleted_versions(plan, bench.hub, bench.work).get(item.stage)
        if deleted and deleted not in restored.values():
            raise MedllmError(
                "stage.deleted-on-hub",
                f"{item.stage}: after the stages above it this would be {deleted} again, which was deleted on the Hub. "
                "What was built so far is kept. Run again to see the plan and to decide.",
            )
        made[item.stage] = standing or _made(plan, item, made, bench, launch)
        record_push(bench.work, plan.recipe.name, bench.hub, made[item.stage], item.digest)
        if item.standing is None:
            plan = _with_equal_content(plan, item, made[item.stage], bench)
        if item.stage == "space":
            configure_space(bench.hub, item.repo_id, plan.recipe, made, bench.say, fresh=standing is None)
    return made


def _with_equal_content(plan: BuildPlan, item: StagePlan, artifact: Artifact, bench: BuildContext) -> BuildPlan:
    """Plan again when the output has the content of an earlier version."""
    provenance = bench.hub.provenance(artifact)
    if provenance is None or provenance.identity == item.digest:
        return plan
    later = plan.renewed(bench.hub)
    missing = {missed.stage for missed in later.missing}
    kept = [missed.stage for missed in plan.missing if missed.stage not in missing and missed.stage != item.stage]
    stay = f", so {', '.join(kept)} {'stays' if len(kept) == 1 else 'stay'} as before" if kept else ""
    bench.say(f"{item.stage}: its content is that of made-{provenance.identity[:12]}{stay}")
    return later


def _standing(item: StagePlan, bench: BuildContext) -> Artifact | None:
    if item.standing:
        return item.standing.artifact
    head = item.head
    if head and head.provenance and head.provenance.digest == item.digest:
        bench.say(f"{item.stage}: pushed by an earlier run that did not get to tag it")
        return tag_output(bench.hub, head.artifact, head.provenance)
    return None


def _made(
    plan: BuildPlan, item: StagePlan, made: dict[Stage, Artifact], bench: BuildContext, launch: Launcher
) -> Artifact:
    bench.say(f"{item.stage}: rebuilding, because {item.why}" if item.remade else f"{item.stage}: {item.why}")
    launch(plan, item, made, bench)
    artifact = bench.hub.find(item.repo_id, item.kind, item.digest)
    if artifact is None:
        raise HubError(
            "stage.no-output",
            f"{item.repo_id}: the stage finished, but its output is not on the Hub under its digest. Run again.",
        )
    bench.say(f"{item.stage}: exists as {artifact.artifact.repo_id}@{artifact.artifact.revision[:7]}")
    return artifact.artifact


def make(
    plan: BuildPlan, item: StagePlan, made: Mapping[Stage, Artifact], maker: Maker, bench: BuildContext
) -> Artifact:
    """Build one stage and push it to the Hub; resume where a killed run stopped."""
    place = bench.work / plan.recipe.name / f"{item.stage}-{item.digest[:12]}"
    with disk_full_named(item, place), exclusive_lock(place, item.repo_id):
        standing = bench.hub.find(item.repo_id, item.kind, item.digest)
        if standing:
            bench.say(f"{item.stage}: another run has made it meanwhile; taking that")
            return standing.artifact
        head = writable_head(bench.hub, item.repo_id, item.kind, item.stage)
        inputs = tuple(_at_commit(source, made) for source in item.inputs)
        seconds = _work(plan, item, inputs, maker, place, bench)
        _name_base(place / "made", inputs)
        provenance = provenance_of(plan, item, inputs, seconds)
        out = place / "made"
        refuse_empty(item.stage, out)
        provenance = replace(provenance, content=content_of(item.stage, out))
        equal = equal_version(bench.hub, item.repo_id, item.kind, provenance)
        teachers = teachers_of(plan, item, made, bench.hub)
        provenance = replace(provenance, same_as=equal.identity if equal else None, teachers=teachers)
        card = card_of(plan, item, provenance, read_facts(out), made, hub=bench.hub)
        if card is not None:
            (out / "README.md").write_text(card, encoding="utf-8")
        provenance.write(out)
        done = describe_facts(item.stage, read_facts(out))
        bench.say(f"{item.stage}: pushing {format_bytes(count_bytes([out]))} to {item.repo_id}")
        with report_push(f"{item.stage}: pushing to {item.repo_id}", place, bench.progress):
            artifact = push(bench.hub, out, item.repo_id, item.kind, head=head, private=True)
        # The Hub of this machine has the bytes now; later stages and commands read them from it.
        if is_local(bench.hub) and not drop_copy(bench.hub, artifact, out):
            bench.say(f"{item.stage}: {out} stays, because the Hub has not exactly these files")
        where = out if out.exists() else f"{artifact.repo_id}@{artifact.revision[:7]}"
        bench.say(f"{item.stage}: {f'{done}; ' if done else ''}{where}")
        return artifact


@contextmanager
def disk_full_named(item: StagePlan, place: Path) -> Iterator[None]:
    """Name the disk that is full, whichever file was being written."""
    try:
        yield
    except Exception as fault:
        if isinstance(fault, MedllmError) or not disk_is_full(fault):
            raise
        raise MedllmError(
            "stage.disk-full",
            f"{item.stage}: the disk that holds {place} is full. Free some space there, or name another with --work, "
            "and rerun the same command to resume.",
        ) from fault


def _work(
    plan: BuildPlan, item: StagePlan, inputs: tuple[Input, ...], maker: Maker, place: Path, bench: BuildContext
) -> float | None:
    """Run the stage until `made` exists; return its seconds, or None where an earlier run had done a part."""
    out, made = place / "making", place / "made"
    if made.exists():
        bench.say(f"{item.stage}: made by an earlier run that did not get to push it")
        return None
    if out.exists():  # not moved to `made`, so it may be incomplete; the progress worth keeping is in its .part
        shutil.rmtree(out)
    part = out.with_name("making.part")
    resumed = part.exists() or fetch_wip(bench.hub, part, item.repo_id, item.kind, branch_of(item.digest))
    bench.say(f"{item.stage}: {'going on where it was stopped' if resumed else 'pulling its sources'}")
    shelves = {
        bench.hub.cache_folder(source.repo_id, source.kind) for source in inputs if source.repo_id and source.kind
    }
    with report_pull(item, shelves, bench.progress):
        sources = plan.resolver.pulled(item.stage, inputs)
    restore_answers(item, bench.hub, bench.say)
    bench.say(f"{item.stage}: at work")
    start = time.monotonic()
    with sync_wip(item, bench.hub, part, bench.keep_every, bench.say), report_work(item, place, bench.progress):
        maker(item.settings, sources, out)
    if not (out / "facts.json").is_file():
        raise MedllmError(
            "stage.no-facts", f"{item.stage}: the stage ended without a facts.json, so it counts as failed. See {out}."
        )
    out.replace(made)
    return None if resumed else time.monotonic() - start


def _name_base(out: Path, inputs: tuple[Input, ...]) -> None:
    """Let an adapter name its base as the Hub knows it, so that it loads by its own name alone."""
    base = next((source for source in inputs if source.reference == "base" and source.repo_id), None)
    config = out / "adapter_config.json"
    if base is not None and config.is_file():
        values = json.loads(config.read_text(encoding="utf-8"))
        values |= {"base_model_name_or_path": base.repo_id, "revision": base.commit}
        config.write_text(json.dumps(values, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _at_commit(source: Input, made: Mapping[Stage, Artifact]) -> Input:
    """A source whose stage was made in this run gets the commit it was pushed as."""
    artifact = made.get(source.reference)  # type: ignore[call-overload]  # only stages are among the keys
    if artifact is None:
        return source
    if artifact.repo_id != source.repo_id:
        raise HubError(
            "stage.output-moved",
            f"{source.reference}: planned in {source.repo_id}, but built in {artifact.repo_id}. Run again.",
        )
    return replace(source, commit=artifact.revision)


def provenance_of(plan: BuildPlan, item: StagePlan, inputs: tuple[Input, ...], seconds: float | None) -> Provenance:
    """Describe how an output was made, now and here; `seconds` is None where a part of the work was done before."""
    made: dict[str, Any] = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "on": hardware()}
    if seconds is not None:
        made["seconds"] = round(seconds, 1)
    values = item.digest_settings
    return Provenance(item.stage, plan.recipe.name, values, inputs, _versions(), item.digest, made)


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


class BusyError(MedllmError):
    """Another run is at work on the same thing."""


@contextmanager
def exclusive_lock(folder: Path, what: str) -> Iterator[None]:
    """Hold the folder for ourselves; the system lets go of it when this process ends, however it ends.

    A lock of this process alone (`lockf`): one of the open file (`flock`) would live on in processes that a library
    forked and that outlive a run that is killed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (NotADirectoryError, FileExistsError, PermissionError) as fault:
        raise MedllmError(
            "stage.no-folder", f"{folder}: the folder cannot be created ({fault.strerror}). Name another with --work."
        ) from fault
    with (folder / "lock").open("a+", encoding="utf-8") as lock:
        if not _takes_lock(lock):
            lock.seek(0)
            who = lock.read().strip() or "another run"
            raise BusyError(
                "stage.busy", f"{what}: {who} is building it right now in {folder}. Wait for it, then run again."
            )
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        yield


def is_locked(folder: Path) -> bool:
    """Return whether a run uses the folder; nothing is written in it."""
    lock = folder / "lock"
    if not lock.exists():
        return False
    with lock.open("r+", encoding="utf-8") as file:
        return not _takes_lock(file)


def _takes_lock(file: TextIO) -> bool:
    """Take the lock of an open file until it is closed; False if another process has it."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def hardware() -> str:
    """The GPUs that this process may use, by their names; else the processor and how many cores of it."""
    gpus = Counter(gpu_names())
    if gpus:
        return ", ".join(f"{count} x {name}" for name, count in gpus.items())
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
    wanted = [part.strip() for part in visible.split(",") if part.strip() not in ("", "-1")]
    return [names[int(name)] if name.isdecimal() and int(name) < len(names) else "GPU" for name in wanted]


def _processor() -> str:
    values = CPU_INFO.read_text(encoding="utf-8", errors="replace") if CPU_INFO.is_file() else ""
    match = re.search(r"^model name\s*:\s*(.+)$", values, re.MULTILINE)
    return match[1].strip() if match else platform.processor() or platform.machine()
