"""Collections: titled lists of repositories; a caller sees only the items of repositories open to that caller."""

import re
import sqlite3
import unicodedata
from dataclasses import dataclass

from starlette.responses import Response

from medllm.localhub.store import accounts, repos
from medllm.localhub.store.accounts import Caller, now
from medllm.localhub.store.repos import Repo
from medllm.localhub.validation import KINDS, HubRefusal, bad_request, check_namespace, forbidden, unauthorized
from medllm.localhub.web.request import Call, Fields, Routes, answer

_SLUG = re.compile(r"(?:.*-)?([0-9a-f]{24})")


@dataclass(frozen=True)
class CollectionItem:
    """One item of a collection."""

    id: int
    repo: Repo
    note: str | None


def slug_of(row: sqlite3.Row) -> str:
    """The last part of its address: the title as far as an address takes it, and the number that finds it again."""
    bare = unicodedata.normalize("NFKD", row["title"]).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "-", bare).strip("-")[:60]
    return f"{words}-{row['id']:024x}".lstrip("-")


def readable(connection: sqlite3.Connection, caller: Caller, namespace: str, name: str) -> sqlite3.Row:
    """Return the collection at this address, if this caller may know of it."""
    match = _SLUG.fullmatch(name)
    row: sqlite3.Row | None = connection.execute(
        "SELECT * FROM collections WHERE namespace = ? AND id = ?",
        (namespace, min(int(match[1], 16), 2**62) if match else -1),
    ).fetchone()
    if row is None or (row["private"] and not caller.belongs(row["namespace"])):
        raise HubRefusal("server.no-such-collection", "There is no such collection", status=404, error_code="NotFound")
    return row


def writable(connection: sqlite3.Connection, caller: Caller, namespace: str, name: str) -> sqlite3.Row:
    """Return the collection at this address, if this caller may change it."""
    row = readable(connection, caller, namespace, name)
    _may_write(caller, row["namespace"])
    return row


def _may_write(caller: Caller, namespace: str) -> None:
    if caller.anonymous:
        raise unauthorized("Changing a collection needs a token")
    if not caller.may_write(namespace):
        raise forbidden(f"You do not have the right to change collections under the namespace {namespace!r}")


def listed(connection: sqlite3.Connection, caller: Caller, owner: str | None) -> list[sqlite3.Row]:
    """Return the collections this caller may see, of one namespace or of all, newest first."""
    where, values = ("WHERE namespace = ?", [owner]) if owner else ("", [])
    rows = connection.execute(f"SELECT * FROM collections {where} ORDER BY modified DESC, id DESC", values).fetchall()
    return [row for row in rows if not row["private"] or caller.belongs(row["namespace"])]


def titled(connection: sqlite3.Connection, namespace: str, title: str) -> sqlite3.Row | None:
    """Return the collection of this title."""
    row: sqlite3.Row | None = connection.execute(
        "SELECT * FROM collections WHERE namespace = ? AND title = ?", (namespace, title)
    ).fetchone()
    return row


def insert(
    connection: sqlite3.Connection,
    caller: Caller,
    namespace: str,
    title: str,
    *,
    description: str | None,
    private: bool,
) -> sqlite3.Row:
    """Create an empty collection; the caller has checked that the title is free."""
    _may_write(caller, check_namespace(namespace))
    if not title.strip():
        raise bad_request("'title' must not be empty")
    moment = now()
    connection.execute(
        "INSERT INTO collections (namespace, title, description, private, created, modified) VALUES (?, ?, ?, ?, ?, ?)",
        (namespace, title, description, private, moment, moment),
    )
    row = titled(connection, namespace, title)
    assert row is not None
    return row


def set_value(connection: sqlite3.Connection, number: int, column: str, value: object) -> None:
    """Set one of a collection's values; `column` is one of the route's own words, never the client's."""
    connection.execute(f"UPDATE collections SET {column} = ?, modified = ? WHERE id = ?", (value, now(), number))


def rename(connection: sqlite3.Connection, row: sqlite3.Row, title: str) -> None:
    """Rename a collection; its address changes, and the old address still works by its number."""
    other = titled(connection, row["namespace"], title)
    if not title.strip() or (other is not None and other["id"] != row["id"]):
        raise HubRefusal(
            "server.title-taken",
            "A collection needs a title that no other of its namespace has",
            status=409,
            error_code="Conflict",
        )
    set_value(connection, row["id"], "title", title)


def remove(connection: sqlite3.Connection, number: int) -> None:
    """Remove a collection; its repositories stay."""
    connection.execute("DELETE FROM collections WHERE id = ?", (number,))


def items(connection: sqlite3.Connection, caller: Caller, number: int) -> list[CollectionItem]:
    """List the items in order, of the repositories this caller may see."""
    rows = connection.execute(
        "SELECT collection_items.id AS item, note, repos.* FROM collection_items JOIN repos ON repos.id = repo "
        "WHERE collection = ? ORDER BY position, item",
        (number,),
    ).fetchall()
    entries = [CollectionItem(row["item"], repos.from_row(row), row["note"]) for row in rows]
    return [entry for entry in entries if not entry.repo.private or caller.belongs(entry.repo.namespace)]


def add(connection: sqlite3.Connection, number: int, repo: Repo, note: str | None) -> None:
    """Append an item; 409 when the repository is already in the collection."""
    try:
        connection.execute(
            "INSERT INTO collection_items (collection, repo, position, note) VALUES (?, ?, "
            "(SELECT coalesce(max(position) + 1, 0) FROM collection_items WHERE collection = ?), ?)",
            (number, repo.id, number, note),
        )
    except sqlite3.IntegrityError:
        raise HubRefusal(
            "server.already-in-collection",
            f"{repo.full} is in this collection already",
            status=409,
            error_code="ItemExists",
        ) from None
    connection.execute("UPDATE collections SET modified = ? WHERE id = ?", (now(), number))


def item(connection: sqlite3.Connection, number: int, name: str) -> int:
    """Find the number of an item by its name for clients."""
    wanted = min(int(name, 16), 2**62) if re.fullmatch(r"[0-9a-f]{24}", name) else -1
    row = connection.execute(
        "SELECT id FROM collection_items WHERE collection = ? AND id = ?", (number, wanted)
    ).fetchone()
    if row is None:
        raise HubRefusal(
            "server.no-such-item", "There is no such item in this collection", status=404, error_code="NotFound"
        )
    return int(row["id"])


def move(connection: sqlite3.Connection, number: int, line: int, place: int) -> None:
    """Move an item to this position and renumber the others."""
    rows = connection.execute("SELECT id FROM collection_items WHERE collection = ? ORDER BY position, id", (number,))
    order = [row["id"] for row in rows if row["id"] != line]
    order.insert(place, line)
    connection.executemany("UPDATE collection_items SET position = ? WHERE id = ?", list(enumerate(order)))


routes = Routes()

_AREA = "/api/collections"
_ONE = _AREA + "/{namespace}/{name}"
_LONGEST_TITLE, _LONGEST_TEXT = 500, 5000
_PAGE = 100


def _described(connection: sqlite3.Connection, call: Call, row: sqlite3.Row) -> dict[str, object]:
    lines = [
        {
            "_id": f"{entry.id:024x}",
            "id": entry.repo.full,
            "type": entry.repo.kind,
            "position": place,
            "private": entry.repo.private,
            "gated": entry.repo.gated or False,
            "lastModified": entry.repo.modified,
            **({"note": {"text": entry.note, "html": ""}} if entry.note else {}),
        }
        for place, entry in enumerate(items(connection, call.caller, row["id"]))
    ]
    person = accounts.find(connection, row["namespace"])
    return {
        "slug": f"{row['namespace']}/{slug_of(row)}",
        "title": row["title"],
        "description": row["description"],
        "owner": {"name": row["namespace"], "type": person["kind"] if person else "user"},
        "private": bool(row["private"]),
        "theme": row["theme"],
        "upvotes": 0,
        "gating": False,
        "lastUpdated": row["modified"],
        "items": lines,
    }


def _whole(connection: sqlite3.Connection, call: Call, row: sqlite3.Row) -> dict[str, object]:
    return {**_described(connection, call, row), "position": 0}


@routes.add("GET", _AREA)
def listing(call: Call) -> Response:
    """List the collections of one owner, or all; with `item`, those that contain a repository."""
    item = call.query.get("item")
    with call.store.database.read() as connection:
        rows = listed(connection, call.caller, call.query.get("owner"))
        described = [_described(connection, call, row) for row in rows]
    if item:
        kinds, _, full = item.partition("/")
        described = [
            collection
            for collection in described
            for line in collection["items"]  # type: ignore[attr-defined]  # as `_described` makes them
            if (KINDS.get(kinds), full) == (line["type"], line["id"])
        ]
    return answer(described[: call.number("limit", _PAGE, _PAGE)])


@routes.add("POST", _AREA, body="memory")
def create(call: Call) -> Response:
    """Create a collection; a refusal names the existing one of that title, so that a client can use it."""
    fields = call.json()
    title, namespace = fields.text("title", most=_LONGEST_TITLE), fields.text("namespace")
    with call.store.database.write() as connection:
        there = titled(connection, namespace, title)
        if there is not None and call.caller.belongs(there["namespace"]):
            slug = f"{there['namespace']}/{slug_of(there)}"
            return answer({"error": "You have a collection of this title already", "slug": slug}, 409)
        row = insert(
            connection,
            call.caller,
            namespace,
            title,
            description=_text(fields, "description"),
            private=bool(fields.private()),
        )
        return answer(_whole(connection, call, row))


@routes.add("GET", _ONE)
def show(call: Call) -> Response:
    """One collection with its items."""
    with call.store.database.read() as connection:
        return answer(_whole(connection, call, readable(connection, call.caller, *call.full)))


@routes.add("PATCH", _ONE, body="memory")
def change(call: Call) -> Response:
    """Change the title, description, theme or visibility."""
    fields = call.json()
    with call.store.database.write() as connection:
        row = writable(connection, call.caller, *call.full)
        if fields.get("title") is not None:
            rename(connection, row, fields.text("title", most=_LONGEST_TITLE))
        for name, longest in (("description", _LONGEST_TEXT), ("theme", 40)):
            if fields.get(name) is not None:
                set_value(connection, row["id"], name, fields.text(name, most=longest))
        private = fields.private()
        if private is not None:
            set_value(connection, row["id"], "private", private)
        row = readable(connection, call.caller, *call.full)
        return answer({"success": True, "data": _whole(connection, call, row)})


@routes.add("DELETE", _ONE)
def delete(call: Call) -> Response:
    """Remove a collection; its repositories stay."""
    with call.store.database.write() as connection:
        remove(connection, writable(connection, call.caller, *call.full)["id"])
    return answer({"success": True})


@routes.add("POST", _ONE + "/items", body="memory")
def add_item(call: Call) -> Response:
    """Add a repository to a collection."""
    fields = call.json()
    wanted = Fields(fields.get("item"))
    kind, full = wanted.text("type"), wanted.text("id")
    if kind not in KINDS.values() or full.count("/") != 1:
        raise bad_request("This hub gathers models, datasets and spaces: give their type, and namespace/name as id")
    namespace, _, name = full.partition("/")
    with call.store.database.write() as connection:
        row = writable(connection, call.caller, *call.full)
        repo = repos.readable(connection, call.caller, kind, (namespace, name))
        add(connection, row["id"], repo, _text(fields, "note"))
        return answer(_whole(connection, call, readable(connection, call.caller, *call.full)))


@routes.add("PATCH", _ONE + "/items/{item}", body="memory")
def change_item(call: Call) -> Response:
    """Change the position or the note of an item."""
    fields = call.json()
    with call.store.database.write() as connection:
        row = writable(connection, call.caller, *call.full)
        line = item(connection, row["id"], call.args["item"])
        if fields.get("position") is not None:
            move(connection, row["id"], line, fields.number("position", most=10**6))
        note = _text(fields, "note")
        if note is not None:
            connection.execute("UPDATE collection_items SET note = ? WHERE id = ?", (note or None, line))
    return answer({"success": True})


@routes.add("DELETE", _ONE + "/items/{item}")
def delete_item(call: Call) -> Response:
    """Take a repository out of a collection."""
    with call.store.database.write() as connection:
        row = writable(connection, call.caller, *call.full)
        line = item(connection, row["id"], call.args["item"])
        connection.execute("DELETE FROM collection_items WHERE id = ?", (line,))
    return answer({"success": True})


def _text(fields: Fields, name: str) -> str | None:
    if fields.get(name) is None:
        return None
    return fields.text(name, most=_LONGEST_TEXT)
