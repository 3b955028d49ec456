"""Whoever makes a thing private, in the words of any client's generation, gets a private one."""

import json

import pytest

from medllm.localhub import LocalHub
from tests.localhub.wire import Wire

PRIVATE = [{"private": True}, {"visibility": "private"}, {"visibility": "protected"}]
PUBLIC = [{}, {"private": False}, {"visibility": "public"}, {"private": None, "visibility": None}]
CLASHING = [{"private": True, "visibility": "public"}, {"private": False, "visibility": "private"}]


@pytest.fixture
def line(hub: LocalHub) -> Wire:
    return Wire(hub.url, hub.token)


def make(line: Wire, what: str, body: dict, name: str = "ward") -> str:
    """Make a thing of one kind; the address that shows it."""
    if what == "bucket":
        assert line.post(f"/api/buckets/alice/{name}", body).status == 200
        return f"/api/buckets/alice/{name}"
    if what == "collection":
        made = line.post("/api/collections", {"title": name, "namespace": "alice", **body})
        return f"/api/collections/{made.json['slug']}"
    more = {"sdk": "static"} if what == "space" else {}
    made = line.post("/api/repos/create", {"name": name, "type": what, **more, **body})
    assert made.status == 200, made
    return f"/api/{what}s/alice/{name}"


@pytest.mark.parametrize("what", ["model", "dataset", "space", "bucket", "collection"])
def test_a_thing_made_private_is_shown_to_its_owner_alone(hub: LocalHub, line: Wire, what: str):
    for number, body in enumerate(PRIVATE + CLASHING):
        address = make(line, what, body, f"ward{number}")
        assert line.send("GET", address).json["private"] is True, body
        assert Wire(hub.url).send("GET", address).status in (401, 404), body


@pytest.mark.parametrize("what", ["model", "dataset", "space", "bucket", "collection"])
def test_a_thing_made_public_is_shown_to_everybody(hub: LocalHub, line: Wire, what: str):
    for number, body in enumerate(PUBLIC):
        assert Wire(hub.url).send("GET", make(line, what, body, f"ward{number}")).json["private"] is False, body


def test_a_visibility_in_other_words_makes_nothing(line: Wire):
    for body in ({"private": "yes"}, {"private": 1}, {"visibility": "secret"}, {"visibility": True}):
        assert line.post("/api/buckets/alice/ward", body).status == 400
        assert line.send("GET", "/api/buckets/alice/ward").status == 404


@pytest.mark.parametrize("body", PRIVATE[:2], ids=str)
def test_settings_make_a_bucket_and_a_repository_private(hub: LocalHub, line: Wire, body: dict):
    for what, method in (("model", "PUT"), ("bucket", "PUT"), ("collection", "PATCH")):
        address = make(line, what, {})
        setting = address if what == "collection" else f"{address}/settings"
        assert line.send(method, setting, json.dumps(body).encode()).status == 200
        assert Wire(hub.url).send("GET", address).status in (401, 404)
