"""The hub's commands as a shell sees them: a server process, tokens, variables, collection."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
from typer.testing import CliRunner

from medllm.cli.main import app
from medllm.errors import HubError
from tests.refusals import refused

MEDLLM = str(Path(sys.executable).with_name("medllm"))


def medllm(*words: str | Path) -> str:
    done = CliRunner().invoke(app, ["hub", *map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_shell_set_up_with_env_reaches_the_served_folder_until_its_token_is_revoked(tmp_path: Path):
    folder = tmp_path / "hub"
    token = medllm("token", "add", folder, "alice", "--role", "write").splitlines()[-1]
    command = [MEDLLM, "hub", "serve", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        url = server.stdout.readline().strip()
        port = url.rsplit(":", 1)[1]
        lines = medllm("env", folder, "--user", "alice", "--port", port)
        shown = subprocess.run(
            ["bash", "-c", f'eval "{"$"}1"; echo "$HF_ENDPOINT $NO_PROXY $HF_HOME"; echo "$HF_TOKEN"', "-", lines],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "HOME": "/somewhere", "NO_PROXY": "intranet"},
        ).stdout.splitlines()
        endpoint, no_proxy, home = shown[0].split()
        assert (endpoint, no_proxy) == (url, "127.0.0.1,localhost,intranet")
        assert home.startswith("/somewhere/.cache/medllm/hub-")
        api = HfApi(endpoint=endpoint, token=shown[1])
        assert api.create_repo("alice/model").repo_id == "alice/model"
        rows = json.loads(medllm("token", "list", folder, "--json"))
        assert [(row["name"], row["role"], row["label"]) for row in rows] == [
            ("alice", "write", "token"),
            ("alice", "write", "env"),
        ]
        medllm("token", "revoke", folder, str(rows[0]["id"]))
        with pytest.raises(HfHubHTTPError, match="Invalid"):
            HfApi(endpoint=endpoint, token=token).whoami()
        assert "removed" in medllm("gc", folder, "--verify")
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    """A folder with somebody's documents."""
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "case.txt").write_text("a case")
    return tmp_path / "texts"


@pytest.mark.parametrize(
    "words", [["hub", "serve", "DIR"], ["hub", "env", "DIR", "--user", "me"], ["hub", "token", "add", "DIR", "me"],
              ["trace", "me/model", "--hub", "DIR"]], ids=lambda words: " ".join(words)
)  # fmt: skip
def test_a_folder_with_other_files_is_refused_and_stays_as_it_is(documents: Path, words: list[str]):
    command = [MEDLLM, *(str(documents) if word == "DIR" else word for word in words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.endswith("[hub.folder-not-a-hub]\n")
    assert "case.txt" in done.stderr
    assert [path.name for path in documents.iterdir()] == ["case.txt"]


def test_a_new_disk_and_a_hub_that_was_just_begun_are_taken(tmp_path: Path):
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "incoming").mkdir()
    medllm("token", "add", tmp_path, "alice")
    assert (tmp_path / "hub.sqlite").is_file()


def test_env_for_somebody_unknown_says_how_to_make_them(tmp_path: Path):
    medllm("token", "add", tmp_path / "hub", "alice")
    with refused("command.unknown-user", f"medllm hub token add {tmp_path / 'hub'} bob", kind=HubError):
        medllm("env", tmp_path / "hub", "--user", "bob")


@pytest.mark.parametrize("words", [["gc"], ["token", "list"], ["token", "revoke", "1"]], ids=" ".join)
def test_a_folder_without_a_hub_is_not_made_one_by_looking_at_it(tmp_path: Path, words: list[str]):
    command, rest = (words[:2], words[2:]) if words[0] == "token" else (words, [])
    with refused("command.no-hub", tmp_path / "no", kind=HubError):
        medllm(*command, tmp_path / "no", *rest)
    assert not (tmp_path / "no").exists()
