"""Settings of a Space: variables, the names of secrets (never their values), and the requested machine."""

import re
import sqlite3
from typing import Literal

from medllm.localhub.errors import bad_request
from medllm.localhub.store.accounts import now
from medllm.localhub.store.repos import Repo

Setting = Literal["variable", "secret"]

MOST = 200
"""Settings of one kind that a Space may have."""

LONGEST = 64_000
"""Characters of one value: more than an environment takes would be found out only when the Space starts."""

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")
_MACHINE = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


def put(
    connection: sqlite3.Connection, repo: Repo, kind: Setting, key: str, value: str, description: str | None
) -> None:
    """Set a variable or a secret; of a secret only its name is kept."""
    if not _KEY.fullmatch(key):
        raise bad_request("A variable's name has letters, digits and '_', at most 256, and starts with no digit")
    if len(value) > LONGEST or "\0" in value:
        raise bad_request(f"A variable's value has at most {LONGEST} characters and no NUL")
    stored = value if kind == "variable" else None
    connection.execute(
        "INSERT OR REPLACE INTO space_settings VALUES (?, ?, ?, ?, ?, ?)",
        (repo.id, kind, key, stored, description, now()),
    )
    (count,) = connection.execute(
        "SELECT count(*) FROM space_settings WHERE repo = ? AND kind = ?", (repo.id, kind)
    ).fetchone()
    if count > MOST:
        raise bad_request(f"A Space has at most {MOST} variables and {MOST} secrets")


def drop(connection: sqlite3.Connection, repo: Repo, kind: Setting, key: str) -> None:
    """Delete a variable or a secret; deleting an absent one is no error."""
    connection.execute("DELETE FROM space_settings WHERE repo = ? AND kind = ? AND key = ?", (repo.id, kind, key))


def settings(connection: sqlite3.Connection, repo: Repo, kind: Setting) -> dict[str, dict[str, object]]:
    """Return all variables with their values, or all secrets without."""
    rows = connection.execute(
        "SELECT * FROM space_settings WHERE repo = ? AND kind = ? ORDER BY key", (repo.id, kind)
    ).fetchall()
    variables: dict[str, dict[str, object]] = {}
    for row in rows:
        variables[row["key"]] = {"key": row["key"], "description": row["description"], "updatedAt": row["updated"]}
        if kind == "variable":
            variables[row["key"]]["value"] = row["value"]
    return variables


def ask_for(connection: sqlite3.Connection, repo: Repo, hardware: str, sleep: int | None) -> None:
    """Record the machine requested for a Space; this hub provides none."""
    if not _MACHINE.fullmatch(hardware):
        raise bad_request("'flavor' must be the name of a machine, such as cpu-basic")
    connection.execute("INSERT OR REPLACE INTO space_machines VALUES (?, ?, ?)", (repo.id, hardware, sleep))


def runtime(connection: sqlite3.Connection, repo: Repo) -> dict[str, object]:
    """Return the runtime of a Space: never running, since this hub does not run Spaces, and the requested machine."""
    row = connection.execute("SELECT * FROM space_machines WHERE repo = ?", (repo.id,)).fetchone()
    return {
        "stage": "NO_APP_FILE",
        "hardware": {"current": None, "requested": row["hardware"] if row else None},
        "storage": None,
        "gcTimeout": row["sleep_seconds"] if row else None,
    }
