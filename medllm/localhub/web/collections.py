"""Routes of collections: make one, fill it, show it to those who may see it."""

import sqlite3

from starlette.responses import Response

from medllm.localhub.errors import bad_request
from medllm.localhub.store import accounts, collections, repos
from medllm.localhub.validation import KINDS
from medllm.localhub.web.request import Call, Fields, Routes, answer

routes = Routes()

_AREA = "/api/collections"
_ONE = _AREA + "/{namespace}/{name}"
_LONGEST_TITLE, _LONGEST_TEXT = 500, 5000
_PAGE = 100


def _described(connection: sqlite3.Connection, call: Call, row: sqlite3.Row) -> dict[str, object]:
    lines = [
        {
            "_id": f"{one.id:024x}",
            "id": one.repo.full,
            "type": one.repo.kind,
            "position": place,
            "private": one.repo.private,
            "gated": one.repo.gated or False,
            "lastModified": one.repo.modified,
            **({"note": {"text": one.note, "html": ""}} if one.note else {}),
        }
        for place, one in enumerate(collections.items(connection, call.caller, row["id"]))
    ]
    person = accounts.find(connection, row["namespace"])
    return {
        "slug": f"{row['namespace']}/{collections.slug(row)}",
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
        rows = collections.listed(connection, call.caller, call.query.get("owner"))
        found = [_described(connection, call, row) for row in rows]
    if item:
        kinds, _, full = item.partition("/")
        found = [
            one
            for one in found
            for line in one["items"]  # type: ignore[attr-defined]  # as `_described` makes them
            if (KINDS.get(kinds), full) == (line["type"], line["id"])
        ]
    return answer(found[: call.number("limit", _PAGE, _PAGE)])


@routes.add("POST", _AREA, body="memory")
def create(call: Call) -> Response:
    """Create a collection; a refusal names the existing one of that title, so that a client can use it."""
    fields = call.json()
    title, namespace = fields.text("title", most=_LONGEST_TITLE), fields.text("namespace")
    with call.store.database.write() as connection:
        there = collections.titled(connection, namespace, title)
        if there is not None and call.caller.belongs(there["namespace"]):
            slug = f"{there['namespace']}/{collections.slug(there)}"
            return answer({"error": "You have a collection of this title already", "slug": slug}, 409)
        row = collections.create(
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
        return answer(_whole(connection, call, collections.readable(connection, call.caller, *call.full)))


@routes.add("PATCH", _ONE, body="memory")
def change(call: Call) -> Response:
    """Change the title, description, theme or visibility."""
    fields = call.json()
    with call.store.database.write() as connection:
        row = collections.writable(connection, call.caller, *call.full)
        if fields.get("title") is not None:
            collections.rename(connection, row, fields.text("title", most=_LONGEST_TITLE))
        for name, longest in (("description", _LONGEST_TEXT), ("theme", 40)):
            if fields.get(name) is not None:
                collections.change(connection, row["id"], name, fields.text(name, most=longest))
        private = fields.private()
        if private is not None:
            collections.change(connection, row["id"], "private", private)
        row = collections.readable(connection, call.caller, *call.full)
        return answer({"success": True, "data": _whole(connection, call, row)})


@routes.add("DELETE", _ONE)
def delete(call: Call) -> Response:
    """Remove a collection; its repositories stay."""
    with call.store.database.write() as connection:
        collections.delete(connection, collections.writable(connection, call.caller, *call.full)["id"])
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
        row = collections.writable(connection, call.caller, *call.full)
        repo = repos.readable(connection, call.caller, kind, (namespace, name))
        collections.add(connection, row["id"], repo, _text(fields, "note"))
        return answer(_whole(connection, call, collections.readable(connection, call.caller, *call.full)))


@routes.add("PATCH", _ONE + "/items/{item}", body="memory")
def change_item(call: Call) -> Response:
    """Change the position or the note of an item."""
    fields = call.json()
    with call.store.database.write() as connection:
        row = collections.writable(connection, call.caller, *call.full)
        line = collections.item(connection, row["id"], call.args["item"])
        if fields.get("position") is not None:
            collections.move(connection, row["id"], line, fields.number("position", most=10**6))
        note = _text(fields, "note")
        if note is not None:
            connection.execute("UPDATE collection_items SET note = ? WHERE id = ?", (note or None, line))
    return answer({"success": True})


@routes.add("DELETE", _ONE + "/items/{item}")
def delete_item(call: Call) -> Response:
    """Take a repository out of a collection."""
    with call.store.database.write() as connection:
        row = collections.writable(connection, call.caller, *call.full)
        line = collections.item(connection, row["id"], call.args["item"])
        connection.execute("DELETE FROM collection_items WHERE id = ?", (line,))
    return answer({"success": True})


def _text(fields: Fields, name: str) -> str | None:
    if fields.get(name) is None:
        return None
    return fields.text(name, most=_LONGEST_TEXT)
