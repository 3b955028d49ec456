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
