"""Spaces: variables can be read by those who may change them, secrets by nobody, and nothing is said to run."""

import sqlite3

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from medllm.localhub import serve
from tests.localhub.wire import Wire

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
