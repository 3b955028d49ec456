"""Listings in pages, files in ranges, and repositories under the names they once had."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import RepositoryNotFoundError

from medllm.localhub import LocalHub, ServerLimits, serve
from tests.localhub.wire import Wire, small


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LocalHub]:
    with serve(tmp_path / "hub", user="alice", limits=ServerLimits(page=7)) as running:
        yield running


def test_a_listing_of_many_pages_has_every_file_once(api: HfApi):
    names = [f"d{number % 3}/f{number:02d}.txt" for number in range(25)]
    api.create_repo("alice/model")
    api.create_commit("alice/model", [CommitOperationAdd(name, b"x") for name in names], commit_message="many")
    found = [item.path for item in api.list_repo_tree("alice/model", recursive=True)]
    assert sorted(found) == sorted([".gitattributes", "d0", "d1", "d2", *names])
    with_commits = list(api.list_repo_tree("alice/model", recursive=True, expand=True))
    assert {item.last_commit.title for item in with_commits if item.path != ".gitattributes"} == {"many"}
    assert [item.path for item in api.list_repo_tree("alice/model", path_in_repo="d1")] == names[1::3]


def test_a_list_of_repos_of_many_pages_has_every_repo_once(api: HfApi):
    for number in range(10):
        api.create_repo(f"alice/model-{number}")
    assert sorted(model.id for model in api.list_models(author="alice")) == [f"alice/model-{n}" for n in range(10)]
    assert [model.id for model in api.list_models(search="model-3")] == ["alice/model-3"]
    assert len(list(api.list_models(limit=3))) == 3


def test_the_last_commit_of_a_path_is_the_one_that_changed_it(api: HfApi):
    api.create_repo("alice/model")
    for title, name in (("one", "a.txt"), ("two", "d/b.txt"), ("three", "a.txt")):
        api.upload_file(path_or_fileobj=title.encode(), path_in_repo=name, repo_id="alice/model", commit_message=title)
    infos = api.get_paths_info("alice/model", ["a.txt", "d", "d/b.txt", ".gitattributes"], expand=True)
    titles = {info.path: info.last_commit.title for info in infos}
    assert titles == {"a.txt": "three", "d": "two", "d/b.txt": "two", ".gitattributes": "initial commit"}


def test_a_moved_repo_is_found_under_both_names_until_the_old_one_is_taken(api: HfApi):
    api.create_repo("alice/old")
    api.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id="alice/old")
    api.move_repo("alice/old", "alice/new")
    assert [api.model_info(name).id for name in ("alice/old", "alice/new")] == ["alice/new", "alice/new"]
    api.create_repo("alice/old")
    assert "x.txt" not in api.list_repo_files("alice/old")
    api.delete_repo("alice/new")
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("alice/new")


def test_what_a_client_has_already_is_not_sent_again(hub: LocalHub):
    wire = Wire(hub.url, hub.token)
    wire.create("alice/model")
    wire.commit("alice/model", small("a.txt", b"hello"))
    first = wire.send("GET", "/alice/model/resolve/main/a.txt")
    again = wire.send("GET", "/alice/model/resolve/main/a.txt", headers={"If-None-Match": first.headers["ETag"]})
    assert (first.body, again.status, again.body) == (b"hello", 304, b"")
    head = wire.send("HEAD", "/alice/model/resolve/main/a.txt")
    assert (head.headers["Content-Length"], head.body) == ("5", b"")


def test_two_names_that_only_unicode_tells_apart_are_refused(hub: LocalHub):
    wire = Wire(hub.url, hub.token)
    wire.create("alice/model")
    assert wire.commit("alice/model", small("が.txt", b"1")).status == 200
    refused = wire.commit("alice/model", small("か\u3099.txt", b"2"))
    assert (refused.status, "two Unicode forms" in refused.json["error"]) == (400, True)


def test_a_file_cannot_be_where_a_folder_is(hub: LocalHub):
    wire = Wire(hub.url, hub.token)
    wire.create("alice/model")
    assert wire.commit("alice/model", small("a", b"1"), small("b/c", b"1")).status == 200
    assert wire.commit("alice/model", small("a/x", b"2")).status == 400
    assert wire.commit("alice/model", small("b", b"2")).status == 400
    assert wire.commit("alice/model", small("n", b"2"), small("n/x", b"2")).status == 400
    replaced = wire.commit("alice/model", {"key": "deletedFolder", "value": {"path": "b/"}}, small("b", b"2"))
    assert replaced.status == 200
    assert wire.send("GET", "/alice/model/resolve/main/b").body == b"2"
