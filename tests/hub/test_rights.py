"""What a token may not do is said in words, before anything is made, and nothing is tried around it."""

from collections.abc import Iterator

import pytest

from medllm.errors import HubError
from medllm.hub import Hub, Provenance, digest_of, push
from medllm.localhub import Hub as Server
from medllm.localhub import serve
from medllm.localhub.store import people


@pytest.fixture
def server(tmp_path) -> Iterator[Server]:
    with serve(tmp_path / "hub", user="clinic") as running:
        yield running


def as_somebody(server: Server, name: str, role: str) -> Hub:
    with server.store.database.write() as connection:
        token = people.issue(connection, people.add_user(connection, name), role=role, label="test")
    return Hub(server.url, token, server.store.folder.with_name(f"cache-{name}-{role}"), "test", waits=())


def test_a_token_that_may_only_read_is_refused_before_anything_is_made(server):
    reader = as_somebody(server, "clinic", "read")
    with pytest.raises(HubError, match=r"the token of clinic may only read. Make one with the role `write`"):
        reader.check_writable("clinic")
    as_somebody(server, "clinic", "write").check_writable("clinic")


def test_a_push_with_a_token_that_may_only_read_leaves_nothing(server, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    Provenance("cpt", "toy", {}, (), {}, digest_of("cpt", {}, ())).write(out)
    reader = as_somebody(server, "clinic", "read")
    with pytest.raises(HubError, match=r"clinic/toy-cpt: this token may not do that"):
        push(reader, out, "clinic/toy-cpt", "model", head=None)
    assert reader.repositories("clinic") == []


def test_a_gated_source_says_where_to_ask_and_opens_once_access_is_granted(server):
    owner, guest = as_somebody(server, "clinic", "write"), as_somebody(server, "guest", "write")
    owner.api.create_repo("clinic/texts", repo_type="dataset")
    owner.api.upload_file(path_or_fileobj=b"{}", path_in_repo="a.jsonl", repo_id="clinic/texts", repo_type="dataset")
    owner.api.update_repo_settings("clinic/texts", repo_type="dataset", gated="manual")
    artifact = owner.resolve("clinic/texts", "dataset")
    with pytest.raises(HubError, match="access must be asked for on its page"):
        guest.pull(artifact)
    owner.api.grant_access("clinic/texts", "guest", repo_type="dataset")
    assert (guest.pull(artifact) / "a.jsonl").read_text() == "{}"


def test_a_private_source_of_others_looks_as_if_it_were_not_there(server):
    owner, guest = as_somebody(server, "clinic", "write"), as_somebody(server, "guest", "write")
    owner.api.create_repo("clinic/texts", repo_type="dataset", private=True)
    with pytest.raises(HubError, match="there is no such repository, or this token may not see it"):
        guest.resolve("clinic/texts", "dataset")
