"""Routes of jobs: start, list, follow, cancel. They exist only when the hub was started with --allow-jobs."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from itertools import islice
from pathlib import Path

from starlette.responses import Response, StreamingResponse

from medllm.localhub import job_runner
from medllm.localhub.job_runner import JobRunner, Spec
from medllm.localhub.job_sandbox import Volume
from medllm.localhub.validation import HubRefusal, bad_request, forbidden, unauthorized
from medllm.localhub.web.request import Call, Fields, Routes, answer

routes = Routes()

_AREA = "/api/jobs/{namespace}"
_POLL = 0.2
_KEEP_ALIVE = 30.0


def _jobs(call: Call, *, change: bool) -> JobRunner:
    """Return the job runner for an authorised caller: only the hub's owner may run a command here."""
    if not isinstance(call.extras, JobRunner):
        raise forbidden("Jobs are off on this hub: it was started without --allow-jobs")
    if call.caller.anonymous:
        raise unauthorized("Jobs need a token")
    if change and not (call.caller.owner and call.caller.role == "write"):
        raise forbidden("Only the hub's owner may run commands on its machine")
    if not call.caller.belongs(call.args.get("namespace", call.caller.name)):
        raise forbidden("These are not your jobs")
    return call.extras


@routes.add("GET", "/api/jobs/hardware")
def hardware(call: Call) -> Response:
    """List the hardware of jobs: always this machine, for every requested flavour."""
    _jobs(call, change=False)
    cores = os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**30
    machine = {
        "name": "cpu-basic",
        "prettyName": "This machine",
        "cpu": f"{cores} vCPU",
        "ram": f"{memory} GB",
        "ephemeralStorage": None,
        "accelerator": None,
        "unitCostMicroUSD": 0,
        "unitCostUSD": 0.0,
        "unitLabel": "minute",
    }
    return answer([machine])


@routes.add("POST", _AREA, body="memory")
def start(call: Call) -> Response:
    """Run a command on this machine."""
    jobs, fields = _jobs(call, change=True), call.json()
    secret = fields.pairs("secrets")
    spec = _spec(fields, tuple(secret))
    with call.store.database.write() as connection:
        number = job_runner.create(connection, call.args["namespace"], spec, fields.pairs("labels"))
        row = job_runner.get(connection, call.args["namespace"], number)
    jobs.start(call.caller, number, spec, secret)
    return answer(job_runner.describe(row))


def _spec(fields: Fields, secret_names: tuple[str, ...]) -> Spec:
    command = (*fields.texts("command"), *fields.texts("arguments"))
    environment = fields.pairs("environment")
    names = [*environment, *secret_names]
    if (
        not command
        or any("\0" in word for word in (*command, *names, *environment.values()))
        or any("=" in n or not n for n in names)
    ):
        raise bad_request("A job needs a command, and neither it nor the environment may hold NUL")
    volumes = tuple(
        Volume(
            item.text("type"),
            item.text("source"),
            item.text("mountPath"),
            item.optional("revision"),
            item.optional("path"),
            item.flag("readOnly"),
        )
        for item in fields.items("volumes", 20)
    )
    if any(not volume.mount.startswith("/") or len(volume.mount) < 2 for volume in volumes):
        raise bad_request("A volume's mount path must be absolute, and not the root")
    shown: dict[str, object] = {
        "command": fields.texts("command"),
        "arguments": fields.texts("arguments"),
        "environment": environment,
        "secrets": dict.fromkeys(secret_names, "***"),
        "flavor": fields.text("flavor", "cpu-basic"),
        "dockerImage": fields.optional("dockerImage"),
        "spaceId": fields.optional("spaceId"),
        "volumes": fields.values("volumes"),
    }
    timeout = fields.number("timeoutSeconds", 0)
    return Spec(command, environment, secret_names, volumes, shown, timeout or None)


@routes.add("GET", _AREA)
def listing(call: Call) -> Response:
    """List the jobs of a namespace, newest first."""
    _jobs(call, change=False)
    stages = set(call.query.getlist("stage"))
    labels = [label.partition("=")[::2] for label in call.query.getlist("label")]
    with call.store.database.read() as connection:
        rows = connection.execute(
            "SELECT * FROM jobs WHERE namespace = ? ORDER BY created DESC, id", (call.args["namespace"],)
        ).fetchall()
    entries = []
    for row in rows:
        own = json.loads(row["labels"])
        if (not stages or row["stage"] in stages) and all(own.get(key) == value for key, value in labels):
            entries.append(job_runner.describe(row))
    return answer(entries)


@routes.add("GET", _AREA + "/{job}")
def inspect(call: Call) -> Response:
    """Describe a job and its current stage."""
    _jobs(call, change=False)
    with call.store.database.read() as connection:
        return answer(job_runner.describe(job_runner.get(connection, call.args["namespace"], call.args["job"])))


@routes.add("POST", _AREA + "/{job}/cancel", body="memory")
def cancel(call: Call) -> Response:
    """End a job and everything it started."""
    jobs = _jobs(call, change=True)
    with call.store.database.read() as connection:
        number = job_runner.get(connection, call.args["namespace"], call.args["job"])["id"]
    jobs.cancel(number)
    return inspect(call)


@routes.add("PUT", _AREA + "/{job}/labels", body="memory")
def label(call: Call) -> Response:
    """Give a job other labels."""
    _jobs(call, change=True)
    fields = call.json()
    labels = fields.pairs("labels") if "labels" in fields else Fields({"all": fields.raw}).pairs("all")
    with call.store.database.write() as connection:
        number = job_runner.get(connection, call.args["namespace"], call.args["job"])["id"]
        connection.execute("UPDATE jobs SET labels = ? WHERE id = ?", (json.dumps(labels), number))
    return inspect(call)


@routes.add("GET", _AREA + "/{job}/metrics")
def metrics(call: Call) -> Response:
    """Return no metrics: the embedded hub measures nothing; clients take this answer for the end of the stream."""
    _jobs(call, change=False)
    raise HubRefusal(
        "server.no-job-metrics", "This hub has no live metrics of jobs", status=406, error_code="NotAcceptable"
    )


@routes.add("GET", _AREA + "/{job}/logs")
def logs(call: Call) -> Response:
    """A job's lines as they come, until it ends."""
    _jobs(call, change=False)
    namespace, number = call.args["namespace"], call.args["job"]
    with call.store.database.read() as connection:
        job_runner.get(connection, namespace, number)

    def ended() -> bool:
        with call.store.database.read() as connection:
            return job_runner.get(connection, namespace, number)["stage"] in job_runner.ENDED

    tail = call.number("tail", 0, 10**6) if "tail" in call.query else None
    stream = _follow(job_runner.log_path(call.store, number), ended, tail)
    return StreamingResponse(stream, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


async def _follow(path: Path, ended: Callable[[], bool], tail: int | None) -> AsyncIterator[str]:
    """Server-sent events: one for each line of the log."""
    position, silent = 0, 0.0
    if tail is not None:
        position = await asyncio.to_thread(_tail, path, tail)
    while True:
        over = await asyncio.to_thread(ended)  # asked before reading, so that no last line is missed
        lines, position = await asyncio.to_thread(_lines_from, path, position)
        for line in lines:
            yield f"data: {line}\n\n"
        if over and not lines:
            return
        silent = 0.0 if lines else silent + _POLL
        if silent >= _KEEP_ALIVE:
            silent = 0.0
            yield ": keep-alive\n\n"
        if not lines:
            await asyncio.sleep(_POLL)


def _lines_from(path: Path, position: int) -> tuple[list[str], int]:
    """Return the next whole lines of the log, and where the one after them starts."""
    try:
        with path.open("rb") as file:
            file.seek(position)
            lines = [line for line in islice(file, 500) if line.endswith(b"\n")]
    except FileNotFoundError:
        return [], position
    return [line.decode().rstrip("\n") for line in lines], position + sum(map(len, lines))


def _tail(path: Path, count: int) -> int:
    """Where the last `count` lines begin."""
    starts = [0]
    try:
        with path.open("rb") as file:
            for line in file:
                starts.append(starts[-1] + len(line))
    except FileNotFoundError:
        return 0
    return starts[max(len(starts) - 1 - count, 0)]
