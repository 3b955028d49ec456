"""What a token may not do is said in words, before anything is made, and nothing is tried around it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from medllm.hub import Hub, Provenance, digest_of, push
from medllm.launch import refuse_unfit
from medllm.localhub import LocalHub as Server
from medllm.localhub import serve
from medllm.localhub.store import accounts
from medllm.pipeline import make_plan
from medllm.recipe import read_recipe
from tests.hub.weather import Storm, weather
from tests.pipeline import toy
from tests.refusals import refused


@pytest.fixture
def server(tmp_path) -> Iterator[Server]:
    with serve(tmp_path / "hub", user="clinic") as running:
        yield running


def as_somebody(server: Server, name: str, role: str) -> Hub:
    with server.store.database.write() as connection:
        token = accounts.issue(connection, accounts.add_user(connection, name), role=role, label="test")
    return Hub(server.url, token, server.store.folder.with_name(f"cache-{name}-{role}"), "test", waits=())


def test_a_token_that_may_only_read_is_refused_before_anything_is_made(server):
    reader = as_somebody(server, "clinic", "read")
    with refused("hub.read-only-token", "clinic"):
        reader.check_writable("clinic")
    as_somebody(server, "clinic", "write").check_writable("clinic")


def test_who_may_only_read_in_an_organization_is_refused_before_anything_is_made(server):
    bob = as_somebody(server, "bob", "write")
    with server.store.database.write() as connection:
        for org, role in {"ward": "read", "lab": "write"}.items():
            accounts.join(connection, org, accounts.add_user(connection, "bob"), role)
    with refused("hub.foreign-namespace", "bob", "`ward`", "bob, lab "):
        bob.check_writable("ward")
    bob.check_writable("lab")


READS = ["repo.content.read", "repo.access.read"]
WRITES = [*READS, "repo.write"]
TEXTS = {"entity": {"type": "dataset", "name": "clinic/toy-corpus"}, "permissions": WRITES}


@contextmanager
def fine_grained(server, scoped):
    """A Hub that says of our token that it is fine-grained, with these rights; it is asked once."""
    proxy, end = weather(server.url)
    token = {"role": "fineGrained"} | ({} if scoped is None else {"fineGrained": {"global": [], "scoped": scoped}})
    identity = {"type": "user", "name": "clinic", "orgs": [], "auth": {"type": "access_token", "accessToken": token}}
    proxy.storms = [Storm("GET /api/whoami-v2", 1, 200, content=json.dumps(identity).encode())]
    try:
        yield Hub(proxy.url, server.token, server.store.folder.with_name("cache"), "test", waits=())
    finally:
        end()


@pytest.mark.parametrize(
    ("scoped", "unwritable"),
    [
        ([], "clinic/toy-corpus, clinic/toy-cpt"),
        ([{"entity": {"type": "user", "name": "clinic"}, "permissions": READS}], "clinic/toy-corpus, clinic/toy-cpt"),
        ([{"entity": {"type": "org", "name": "other"}, "permissions": WRITES}], "clinic/toy-corpus, clinic/toy-cpt"),
        ([TEXTS], "clinic/toy-cpt"),
        ([TEXTS, {"entity": {"type": "model", "name": "Clinic/toy-cpt"}, "permissions": WRITES}], None),
        ([{"entity": {"type": "user", "name": "clinic"}, "permissions": WRITES}], None),
        (None, None),
    ],
)
def test_a_fine_grained_token_without_the_right_to_write_there_is_refused_before_anything_is_made(
    server, scoped, unwritable
):
    with fine_grained(server, scoped) as hub:
        if unwritable is None:
            hub.check_writable("clinic", ["clinic/toy-corpus", "clinic/toy-cpt"])
        else:
            with refused("hub.token-without-write", "clinic", f"{unwritable}."):
                hub.check_writable("clinic", ["clinic/toy-corpus", "clinic/toy-cpt"])


@pytest.mark.parametrize(
    ("rights", "fails"), [(WRITES, True), ([*WRITES, "job.write"], False), (None, False)], ids=["no", "yes", "untold"]
)
def test_a_fine_grained_token_that_may_not_start_jobs_is_refused_before_anything_is_made(
    tmp_path, server, rights, fails
):
    toy.lay_out(tmp_path)
    scoped = None if rights is None else [{"entity": {"type": "user", "name": "clinic"}, "permissions": rights}]
    with fine_grained(server, scoped) as hub:
        plan = make_plan(read_recipe(tmp_path / "toy.yaml"), hub)
        refuse_unfit("local", plan, hub)
        if fails:
            with refused("hub.token-without-jobs", "`job.write`", "in clinic", "--on jobs"):
                refuse_unfit("jobs", plan, hub)
        else:
            refuse_unfit("jobs", plan, hub)


def test_a_push_with_a_token_that_may_only_read_leaves_nothing(server, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    Provenance("cpt", "toy", {}, (), {}, digest_of("cpt", {}, ())).write(out)
    reader = as_somebody(server, "clinic", "read")
    with refused("hub.forbidden", "clinic/toy-cpt"):
        push(reader, out, "clinic/toy-cpt", "model", head=None)
    assert reader.repositories("clinic") == []


def test_a_gated_source_says_where_to_ask_and_opens_once_access_is_granted(server):
    owner, guest = as_somebody(server, "clinic", "write"), as_somebody(server, "guest", "write")
    owner.api.create_repo("clinic/texts", repo_type="dataset")
    owner.api.upload_file(path_or_fileobj=b"{}", path_in_repo="a.jsonl", repo_id="clinic/texts", repo_type="dataset")
    owner.api.update_repo_settings("clinic/texts", repo_type="dataset", gated="manual")
    artifact = owner.resolve("clinic/texts", "dataset")
    with refused("hub.gated", "clinic/texts"):
        guest.pull(artifact)
    owner.api.grant_access("clinic/texts", "guest", repo_type="dataset")
    assert (guest.pull(artifact) / "a.jsonl").read_text() == "{}"


def test_a_private_source_of_others_looks_as_if_it_were_not_there(server):
    owner, guest = as_somebody(server, "clinic", "write"), as_somebody(server, "guest", "write")
    owner.api.create_repo("clinic/texts", repo_type="dataset", private=True)
    with refused("hub.no-such-repository", "clinic/texts"):
        guest.resolve("clinic/texts", "dataset")
