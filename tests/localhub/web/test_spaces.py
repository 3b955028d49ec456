"""Spaces keep settings and run nothing, names without a namespace are absent, and what is not offered answers so."""

import sqlite3
from pathlib import Path
from urllib.parse import quote

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import BadRequestError, HfHubHTTPError, RepositoryNotFoundError

from medllm.localhub import LocalHub, serve
from medllm.localhub.store import accounts
from medllm.localhub.web.spaces import ABSENT
from tests.localhub.wire import Wire, small

NAME = "alice/viewer"
HUSH = "hush-" + "9" * 30


@pytest.fixture
def space(api: HfApi) -> str:
    """A new Space."""
    return api.create_repo(NAME, repo_type="space", space_sdk="gradio").repo_id


def test_variables_are_set_changed_read_and_forgotten(api: HfApi, space: str):
    api.add_space_variable(space, "A", "1", description="first")
    variables = api.add_space_variable(space, "A", "2")
    api.add_space_variable(space, "B", "日本語\n二行目")
    assert {key: one.value for key, one in api.get_space_variables(space).items()} == {"A": "2", "B": "日本語\n二行目"}
    assert variables["A"].updated_at is not None
    assert list(api.delete_space_variable(space, "A")) == ["B"]


def test_a_secret_is_known_by_its_name_only_and_its_value_is_nowhere(api: HfApi, space: str, hub, tmp_path):
    api.add_space_secret(space, "KEY", HUSH, description="for the judge")
    (one,) = api.get_space_secrets(space).values()
    assert (one.key, one.description, one.updated_at is not None) == ("KEY", "for the judge", True)
    replies = [
        Wire(hub.url, hub.token).send("GET", f"/api/spaces/{space}{end}").body for end in ("/secrets", "", "/variables")
    ]
    assert not any(HUSH.encode() in reply for reply in replies)
    files = [path for path in (tmp_path / "hub").rglob("*") if path.is_file()]
    assert any(b"for the judge" in path.read_bytes() for path in files)
    assert not any(HUSH.encode() in path.read_bytes() for path in files)
    api.delete_space_secret(space, "KEY")
    assert api.get_space_secrets(space) == {}


def test_a_space_is_given_all_of_it_when_it_is_made(api: HfApi):
    api.create_repo(
        NAME, repo_type="space", space_sdk="gradio", space_hardware="t4-small", space_sleep_time=3600,
        space_variables=[{"key": "A", "value": "1"}], space_secrets=[{"key": "K", "value": HUSH}],
    )  # fmt: skip
    runtime = api.get_space_runtime(NAME)
    assert (runtime.requested_hardware, runtime.hardware, runtime.sleep_time) == ("t4-small", None, 3600)
    assert api.get_space_variables(NAME)["A"].value == "1"
    assert list(api.get_space_secrets(NAME)) == ["K"]
    assert api.space_info(NAME).runtime.requested_hardware == "t4-small"


def test_asking_for_hardware_is_noted_and_what_needs_a_running_space_is_refused(api: HfApi, space: str):
    assert api.request_space_hardware(space, "a10g-small").requested_hardware == "a10g-small"
    with pytest.raises(HfHubHTTPError) as caught:
        api.restart_space(space)
    assert caught.value.response.headers["X-Error-Code"] == "NotRun"


def test_only_those_who_may_change_a_space_see_what_it_is_given(api: HfApi, space: str, hub):
    api.add_space_variable(space, "A", "1")
    for word in ("variables", "secrets"):
        assert Wire(hub.url).send("GET", f"/api/spaces/{space}/{word}").status == 401
        assert Wire(hub.url).post(f"/api/spaces/{space}/{word}", {"key": "A", "value": "2"}).status == 401
    assert api.get_space_variables(space)["A"].value == "1"


@pytest.mark.parametrize(
    "fields",
    [{"key": "1A", "value": "x"}, {"key": "A B", "value": "x"}, {"key": "A"}, {"key": "A", "value": "x\0"},
     {"key": "A", "value": "x" * 70_000}, {"key": "A", "value": 3}],
)  # fmt: skip
def test_a_setting_that_no_environment_takes_is_refused(hub, api: HfApi, space: str, fields: dict):
    assert Wire(hub.url, hub.token).post(f"/api/spaces/{space}/variables", fields).status == 400
    assert api.get_space_variables(space) == {}


def test_a_deleted_space_takes_its_settings_with_it(api: HfApi, space: str):
    api.add_space_variable(space, "A", "1")
    api.delete_repo(space, repo_type="space")
    api.create_repo(space, repo_type="space", space_sdk="gradio")
    assert api.get_space_variables(space) == {}


def test_a_store_from_before_there_were_such_settings_is_brought_up_to_date(tmp_path):
    with serve(tmp_path / "old", user="alice") as hub:
        HfApi(endpoint=hub.url, token=hub.token).create_repo(NAME, repo_type="space", space_sdk="gradio")
    path = tmp_path / "old" / "hub.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript("DROP TABLE space_settings; DROP TABLE space_machines; PRAGMA user_version = 1;")
    connection.close()
    with serve(tmp_path / "old", user="alice") as hub:
        api = HfApi(endpoint=hub.url, token=hub.token)
        assert api.get_space_variables(NAME) == {}
        api.add_space_variable(NAME, "A", "1")


@pytest.mark.parametrize("kind", ["model", "dataset", "space"])
def test_a_name_without_a_namespace_is_a_repository_that_is_not_there(api: HfApi, kind: str, tmp_path: Path):
    calls = [
        lambda: api.repo_info("gpt2", repo_type=kind),
        lambda: api.repo_info("gpt2", repo_type=kind, revision="main"),
        lambda: api.hf_hub_download("gpt2", "config.json", repo_type=kind, cache_dir=tmp_path),
        lambda: api.snapshot_download("gpt2", repo_type=kind, cache_dir=tmp_path),
        lambda: api.list_repo_commits("gpt2", repo_type=kind),
        lambda: api.list_repo_refs("gpt2", repo_type=kind),
        lambda: api.list_repo_files("gpt2", repo_type=kind),
        lambda: api.get_paths_info("gpt2", ["a"], repo_type=kind),
        lambda: api.upload_file(path_or_fileobj=b"a", path_in_repo="a", repo_id="gpt2", repo_type=kind),
        lambda: api.create_tag("gpt2", tag="v1", repo_type=kind),
        lambda: api.auth_check("gpt2", repo_type=kind),
        lambda: api.update_repo_settings("gpt2", private=True, repo_type=kind),
    ]
    assert api.repo_exists("gpt2", repo_type=kind) is False
    assert api.file_exists("gpt2", "config.json", repo_type=kind) is False
    for call in calls:
        with pytest.raises(RepositoryNotFoundError):
            call()


def test_what_is_not_offered_says_its_name_and_is_in_the_documentation(hub: LocalHub):
    line = Wire(hub.url, hub.token)
    line.create("alice/model")
    line.post("/api/repos/create", {"name": "model", "type": "dataset"})
    text = " ".join((Path(__file__).parents[3] / "docs" / "offline-hub.md").read_text().split())
    for what, addresses in ABSENT.items():
        assert what in text
        for address in addresses:
            names = {"{kinds}": "models", "{namespace}": "alice", "{name}": "model", "{rest...}": "x"}
            for hole, value in names.items():
                address = address.replace(hole, value)
            for method in ("GET", "POST"):
                reply = line.send(method, address.replace("{", "").replace("}", ""), b"{}")
                assert (reply.status, reply.headers["X-Error-Code"]) == (501, "NotOffered"), (method, address)
                assert what in reply.json["error"]


def test_what_is_not_offered_is_not_reported_of_a_repository_that_is_not_there(hub: LocalHub):
    assert (
        Wire(hub.url, hub.token).send("POST", "/api/models/alice/none/like").headers["X-Error-Code"] == "RepoNotFound"
    )
    assert Wire(hub.url, hub.token).send("POST", "/api/models/none/like").headers["X-Error-Code"] == "RepoNotFound"


def test_access_that_somebody_has_is_not_granted_again(hub: LocalHub, api: HfApi):
    with hub.store.database.write() as connection:
        accounts.add_user(connection, "bob")
    api.create_repo("alice/gated")
    api.update_repo_settings("alice/gated", gated="manual")
    api.grant_access("alice/gated", "bob")
    for again in (
        lambda: api.grant_access("alice/gated", "bob"),
        lambda: api.accept_access_request("alice/gated", "bob"),
    ):
        with pytest.raises(BadRequestError):
            again()
    api.reject_access_request("alice/gated", "bob", rejection_reason="no")
    api.grant_access("alice/gated", "bob")


def test_the_buckets_of_a_user_are_listed_by_name_by_me_and_by_search(api: HfApi):
    for name in ("ward", "lab"):
        api.create_bucket(f"alice/{name}", private=True)
    assert {bucket.id for bucket in api.list_buckets()} == {"alice/ward", "alice/lab"}
    assert {bucket.id for bucket in api.list_buckets("alice")} == {"alice/ward", "alice/lab"}
    with pytest.raises(HfHubHTTPError, match="404"):
        list(api.list_buckets("nobody"))


NAMES = [
    "2017年／報告.txt",
    "Q:1の回答.txt",
    "＼.txt",
    "100%.txt",
    "a b.txt",
    "か\u3099.txt",
    "🩺👩🏽‍⚕️.txt",
    "a?b#c&d=e+f.txt",
]
NAMES += ["％.txt", "a'b\"c.txt", "[a].txt", "~a.txt", "C:.txt", "．．txt", "ﾌﾞ.txt"]


def test_a_name_that_people_write_comes_back_as_it_was(hub: LocalHub, api: HfApi, tmp_path: Path):
    line = Wire(hub.url, hub.token)
    line.create("alice/model")
    assert line.commit("alice/model", *(small(name, name.encode()) for name in NAMES)).status == 200
    assert set(api.list_repo_files("alice/model")) == {".gitattributes", *NAMES}
    for name in NAMES:
        assert line.send("GET", f"/alice/model/resolve/main/{quote(name)}").body == name.encode()
        if name[1] == ":":
            continue  # the client itself puts no such name on this disk
        path = api.hf_hub_download("alice/model", name, local_dir=tmp_path)
        assert Path(path).read_bytes() == name.encode()
    assert len(api.get_paths_info("alice/model", NAMES)) == len(NAMES)


@pytest.mark.parametrize(
    "name",
    [
        "../a",
        "a/../b",
        "/a",
        "a//b",
        "a\\b",
        "C:/a",
        "a\0b",
        "a\nb",
        "．．/a",
        "․․/a",
        ".git/config",
        ".GIT/x",
        "git~1/a",
        "\u200c.git/config",
        "a" * 256,
        "a/" * 64 + "a",
        "a\ud800b",
        ".",
        "..",
        ". /a",
        "/".join(["a" * 200] * 6),
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(hub: LocalHub, name: str):
    line = Wire(hub.url, hub.token)
    line.create("alice/model")
    assert line.commit("alice/model", small(name, b"x")).status == 400


def test_a_bucket_moves_and_never_onto_another(api: HfApi):
    api.create_bucket("alice/ward", private=True)
    api.create_bucket("alice/lab")
    with pytest.raises(HfHubHTTPError):
        api.move_bucket("alice/ward", "alice/lab")
    api.move_bucket("alice/ward", "alice/clinic")
    assert api.bucket_info("alice/clinic").private is True
    assert {bucket.id for bucket in api.list_buckets()} == {"alice/clinic", "alice/lab"}


def test_a_commits_words_are_escaped_where_html_is_asked_for(api: HfApi):
    api.create_repo("alice/model")
    api.upload_file(path_or_fileobj=b"a", path_in_repo="a", repo_id="alice/model", commit_message="<b> & c")
    assert api.list_repo_commits("alice/model", formatted=True)[0].formatted_title == "&lt;b&gt; &amp; c"
    assert api.list_repo_commits("alice/model")[0].title == "<b> & c"


def test_a_pull_request_is_not_offered_and_leaves_nothing_behind(hub: LocalHub, api: HfApi):
    line = Wire(hub.url, hub.token)
    line.create("alice/model")
    head = api.list_repo_refs("alice/model", include_pull_requests=True)
    body = b'{"key": "header", "value": {"summary": "s"}}'
    reply = line.send("POST", "/api/models/alice/model/commit/main?create_pr=1", body)
    assert (reply.status, reply.headers["X-Error-Code"]) == (501, "NotOffered")
    after = api.list_repo_refs("alice/model", include_pull_requests=True)
    assert after.pull_requests == [] and after.branches == head.branches
