"""Job records: the command, the current stage, and the log line by line."""

import json
import secrets
import sqlite3
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from medllm.localhub.errors import HubRefusal
from medllm.localhub.store.accounts import now
from medllm.localhub.store.store import Store

ENDED = frozenset({"COMPLETED", "ERROR", "CANCELED", "DELETED"})


@dataclass(frozen=True)
class Volume:
    """A repository or bucket that a job finds as a folder."""

    kind: str
    source: str
    mount: str
    revision: str | None = None
    path: str | None = None
    read_only: bool = False


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
