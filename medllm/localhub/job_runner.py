"""Jobs: their records and logs, and the run of each in a separate folder and process group."""

import json
import logging
import secrets
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from medllm.errors import HubError
from medllm.localhub import job_sandbox
from medllm.localhub.job_sandbox import Volume
from medllm.localhub.store.accounts import Caller, now
from medllm.localhub.store.store import Store
from medllm.localhub.validation import HubRefusal
from medllm.processes import start_guarded

ENDED = frozenset({"COMPLETED", "ERROR", "CANCELED", "DELETED"})


@dataclass(frozen=True)
class Spec:
    """What a job runs; secrets are kept separately and never stored."""

    command: tuple[str, ...]
    environment: dict[str, str]
    secret_names: tuple[str, ...]
    volumes: tuple[Volume, ...]
    shown: dict[str, object]
    """The request's own fields, as clients want them back."""
    timeout: int | None = None


def create(connection: sqlite3.Connection, namespace: str, spec: Spec, labels: dict[str, str]) -> str:
    """Create the record of a job and return its id; the job has not started yet."""
    number = secrets.token_hex(12)
    connection.execute(
        "INSERT INTO jobs VALUES (?, ?, ?, ?, 'SCHEDULING', NULL, ?, NULL, NULL)",
        (number, namespace, json.dumps(spec.shown), json.dumps(labels), now()),
    )
    return number


def get(connection: sqlite3.Connection, namespace: str, number: str) -> sqlite3.Row:
    """Return the row of a job."""
    row: sqlite3.Row | None = connection.execute(
        "SELECT * FROM jobs WHERE id = ? AND namespace = ?", (number, namespace)
    ).fetchone()
    if row is None:
        raise HubRefusal("server.no-such-job", "Job not found", status=404, error_code="JobNotFound")
    return row


def set_stage(store: Store, number: str, stage: str, message: str | None = None) -> None:
    """Record the stage of a job; a job that has ended keeps its last stage."""
    column = "finished" if stage in ENDED else "started"
    with store.database.write() as connection:
        connection.execute(
            f"UPDATE jobs SET stage = ?, message = ?, {column} = ? WHERE id = ? AND stage IN ('SCHEDULING', 'RUNNING')",
            (stage, message, now(), number),
        )


def end_all_left_over(store: Store) -> None:
    """Mark the jobs of an earlier server as ended."""
    with store.database.write() as connection:
        connection.execute(
            "UPDATE jobs SET stage = 'ERROR', message = 'The hub was stopped', finished = ? "
            "WHERE stage IN ('SCHEDULING', 'RUNNING')",
            (now(),),
        )


def describe(row: sqlite3.Row) -> dict[str, object]:
    """A job as clients read it."""
    owner = {"id": "0" * 24, "name": row["namespace"], "type": "user"}
    return {
        **json.loads(row["spec"]),
        "id": row["id"],
        "createdAt": row["created"],
        "startedAt": row["started"],
        "finishedAt": row["finished"],
        "labels": json.loads(row["labels"]),
        "status": {"stage": row["stage"], "message": row["message"]},
        "durations": {
            "schedulingSecs": _seconds(row["created"], row["started"]),
            "runningSecs": _seconds(row["started"], row["finished"] or now()) if row["started"] else None,
            "totalSecs": _seconds(row["created"], row["finished"] or now()),
        },
        "owner": owner,
        "initiator": owner,
    }


def _seconds(start: str, end: str | None) -> int | None:
    return None if end is None else int((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds())


class JobLog:
    """A job's lines in a file, cut when there are too many."""

    def __init__(self, path: Path, most: int) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._left = most

    def write(self, line: str) -> None:
        """Add a line with its time."""
        self._left -= 1
        if self._left < 0:
            return
        text = line if self._left else "... the log is cut here: it has too many lines"
        self._file.write(json.dumps({"timestamp": now(), "data": text}, ensure_ascii=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the log's file."""
        self._file.close()


def log_path(store: Store, number: str) -> Path:
    """Return the path of a job's log."""
    return store.folder / "jobs" / number / "log.jsonl"


log = logging.getLogger("medllm.localhub")


class _Running:
    """A job's process, and the stage in which a user or a timeout ends it."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.stopped: str | None = None
        self.thread: threading.Thread | None = None
        self.lock = threading.Lock()

    def stop(self, stage: str) -> None:
        """Close the guard's pipe: it ends the whole group."""
        with self.lock:
            self.stopped = self.stopped or stage
            if self.process is not None and self.process.stdin is not None:
                with suppress(OSError):
                    self.process.stdin.close()


class JobRunner:
    """The jobs of one server."""

    def __init__(self, store: Store, url: str) -> None:
        self._store = store
        self._url = url
        self._running: dict[str, _Running] = {}
        end_all_left_over(store)

    def start(self, caller: Caller, number: str, spec: Spec, secret: Mapping[str, str]) -> None:
        """Start a job that is already recorded."""
        running = self._running[number] = _Running()
        running.thread = threading.Thread(target=self._run, args=(running, caller, number, spec, secret), daemon=True)
        running.thread.start()

    def cancel(self, number: str) -> None:
        """End a job and everything it started."""
        running = self._running.get(number)
        if running is not None:
            running.stop("CANCELED")
            set_stage(self._store, number, "CANCELED")

    def stop(self) -> None:
        """Ask every job to end."""
        for running in list(self._running.values()):
            running.stop("ERROR")

    def close(self) -> None:
        """End every job; the server stops."""
        self.stop()
        for running in list(self._running.values()):
            if running.thread is not None:
                running.thread.join(15)

    def _run(self, running: _Running, caller: Caller, number: str, spec: Spec, secret: Mapping[str, str]) -> None:
        folder = self._store.folder / "jobs" / number
        folder.mkdir(parents=True)
        lines = JobLog(log_path(self._store, number), self._store.limits.job_log_lines)
        try:
            stage, message = self._work(running, caller, number, spec, secret, lines)
        except (HubError, OSError) as fault:
            stage, message = "ERROR", str(fault)
            lines.write(str(fault))
        except Exception:
            log.exception("job %s failed", number)
            stage, message = "ERROR", "The hub failed to run this job; the hub's log shows why"
        lines.close()
        if running.stopped == "CANCELED":
            stage, message = "CANCELED", None
        elif running.stopped == "TIMEOUT":
            stage, message = "ERROR", "Job timeout"
        set_stage(self._store, number, stage, message)
        for name in ("volumes", "work", "home"):  # as in a container: what was not pushed or put in a bucket is gone
            shutil.rmtree(folder / name, ignore_errors=True)
        self._running.pop(number, None)

    def _work(
        self, running: _Running, caller: Caller, number: str, spec: Spec, secret: Mapping[str, str], lines: JobLog
    ) -> tuple[str, str | None]:
        folder = self._store.folder / "jobs" / number
        places = {volume.mount: folder / "volumes" / str(index) for index, volume in enumerate(spec.volumes)}
        for volume in spec.volumes:
            job_sandbox.fill(self._store, caller, volume, places[volume.mount])
        plan = job_sandbox.plan([job_sandbox.relocate(word, places) for word in spec.command])
        lines.write(f"===== Job started on this machine: no image is used ({number}) =====")
        for note in plan.notes:
            lines.write(note)
        if not plan.command:
            return "ERROR", plan.notes[0]
        given = {name: job_sandbox.relocate(value, places) for name, value in spec.environment.items()}
        standard = {
            "HF_ENDPOINT": self._url,
            "HF_HOME": str(folder / "home"),
            "JOB_ID": number,
            "NO_PROXY": "127.0.0.1,localhost",
        }
        code = self._wait(
            running, number, plan.command, job_sandbox.environment({**standard, **given, **secret}), spec, lines
        )
        for volume in spec.volumes:
            if count := job_sandbox.take_back(self._store, caller, volume, places[volume.mount]):
                lines.write(f"{count} files went back to the bucket {volume.source}")
        return ("COMPLETED", None) if code == 0 else ("ERROR", f"Job failed with exit code: {code}")

    def _wait(
        self, running: _Running, number: str, words: list[str], environment: dict[str, str], spec: Spec, lines: JobLog
    ) -> int:
        work = self._store.folder / "jobs" / number / "work"
        work.mkdir()
        with running.lock:
            if running.stopped:
                return 1
            running.process = process = start_guarded(
                words, cwd=work, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
        set_stage(self._store, number, "RUNNING")
        timer = threading.Timer(spec.timeout, running.stop, ("TIMEOUT",)) if spec.timeout else None
        if timer:
            timer.daemon = True
            timer.start()
        with process:
            if process.stdout is not None:
                while line := process.stdout.readline(65536):
                    lines.write(line.decode("utf-8", "replace").rstrip("\r\n"))
            code = process.wait()
        if timer:
            timer.cancel()
        return code
