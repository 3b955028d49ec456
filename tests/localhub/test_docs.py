"""The shells of docs/offline-hub.md, run as they stand: the server's, alice's and bob's."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "offline-hub.md"
SHELLS = dict(re.findall(r"<!-- shell: (\w+) -->\n```bash\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL))


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def shell(name: str, home: Path, port: int) -> dict[str, str]:
    keep = {key: os.environ[key] for key in ("LANG", "SSL_CERT_FILE") if key in os.environ}
    (home / name).mkdir(exist_ok=True)
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    quiet = {"HF_HUB_DISABLE_UPDATE_CHECK": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"}
    return keep | quiet | {"PATH": programs, "HOME": str(home / name), "MEDLLM_HUB_PORT": str(port)}


def test_the_document_has_its_three_shells():
    assert list(SHELLS) == ["server", "alice", "bob"]


@pytest.mark.long
@pytest.mark.slow
def test_from_an_empty_folder_to_from_pretrained_in_somebody_elses_shell(tmp_path: Path):
    folder, port = tmp_path / "empty", free_port()
    folder.mkdir()

    def run(name: str) -> str:
        command = ["bash", "-euo", "pipefail", "-c", SHELLS[name]]
        done = subprocess.run(
            command,
            cwd=folder,
            env=shell(name, tmp_path, port),
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout

    command = ["bash", "-euo", "pipefail", "-c", SHELLS["server"].replace("medllm hub serve", "exec medllm hub serve")]
    environment = shell("server", tmp_path, port)
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout.readline().strip() == f"http://127.0.0.1:{port}"
            assert "alice" in run("alice")
            shown = run("bob")
        finally:
            server.terminate()
    assert "bob" in shown
    assert re.search(r"\['答え', 'a'\] \d+ parameters", shown)
    for name in ("alice-token.txt", "bob-token.txt"):
        assert re.fullmatch(r"hf_\w{34}\n", (folder / name).read_text())
