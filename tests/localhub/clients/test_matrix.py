"""Real, unmodified clients of several generations against the hub, each in a process and environment of its own."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from medllm.localhub import LocalHub, serve
from tests.localhub.clients.installed import node_client, python_client, run

HERE = Path(__file__).parent
VERSIONS = ["0.36.2", "1.19.0", "1.33.0", "2.4.0"]

pytestmark = [pytest.mark.matrix]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    with serve(tmp_path_factory.mktemp("hub"), user="alice") as running:
        yield running


@pytest.fixture
def shell(served: LocalHub, tmp_path: Path) -> dict[str, str]:
    """The environment of a shell that `medllm hub env` has set up, and nothing of this process's own."""
    keep = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "SSL_CERT_FILE") if name in os.environ}
    return keep | {
        "HF_ENDPOINT": served.url,
        "HF_TOKEN": served.token,
        "HF_HOME": str(tmp_path / "home"),
        "NO_PROXY": "127.0.0.1,localhost",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "OMP_NUM_THREADS": "1",
    }


@pytest.mark.parametrize(
    "version", [*(pytest.param(one, marks=pytest.mark.long) for one in VERSIONS[:-1]), VERSIONS[-1]]
)
def test_huggingface_hub_of_this_version_can_do_all_of_the_round_trip(version: str, shell: dict[str, str]):
    programs = python_client(version)
    assert run(programs / "python", HERE / "round_trip.py", env=shell).startswith(f"{version} speaks to")


@pytest.mark.long
def test_the_newest_client_can_also_be_set_to_leave_xet_alone(shell: dict[str, str]):
    run(python_client(VERSIONS[-1]) / "python", HERE / "round_trip.py", env=shell | {"HF_HUB_DISABLE_XET": "1"})


@pytest.mark.long
@pytest.mark.parametrize(("version", "program"), [("0.36.2", "huggingface-cli"), *((v, "hf") for v in VERSIONS)])
def test_the_command_line_uploads_and_downloads(version: str, program: str, shell: dict[str, str], tmp_path: Path):
    command = python_client(version) / program
    folder, repo = tmp_path / "folder", f"alice/{program}-{version.replace('.', '-')}"
    folder.mkdir()
    (folder / "a.bin").write_bytes(bytes(range(256)) * 500)
    run(command, "upload", repo, folder, ".", "--private", env=shell)
    run(command, "download", repo, "a.bin", "--local-dir", tmp_path / "back", env=shell)
    assert (tmp_path / "back" / "a.bin").read_bytes() == (folder / "a.bin").read_bytes()


@pytest.mark.long
def test_the_javascript_client_can_do_its_round_trip(shell: dict[str, str]):
    place = node_client()
    shutil.copy(HERE / "round_trip.mjs", place / "round_trip.mjs")
    assert "speaks to" in run("node", "round_trip.mjs", cwd=place, env=shell)


@pytest.mark.slow
@pytest.mark.long
def test_the_training_libraries_push_and_load(shell: dict[str, str]):
    assert "speak to" in run(sys.executable, HERE / "training.py", env=shell)
