"""Other versions of the clients, each installed once in an environment of its own that later runs find again."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PLACE = Path(os.environ.get("MEDLLM_CLIENTS", Path.home() / ".cache" / "medllm" / "clients"))
NPM_VERSION = "2.17.5"


def python_client(version: str) -> Path:
    """The folder of programs of an environment that has this huggingface_hub and nothing of ours."""
    made = PLACE / f"huggingface_hub-{version}-py{sys.version_info.major}.{sys.version_info.minor}"
    if not (made / "complete").is_file():
        shutil.rmtree(made, ignore_errors=True)
        made.parent.mkdir(parents=True, exist_ok=True)
        wanted = (
            f"huggingface_hub[cli,hf_xet]=={version}" if version.startswith("0.") else f"huggingface_hub=={version}"
        )
        if shutil.which("uv"):
            run("uv", "venv", "--quiet", "--python", sys.executable, made)
            run("uv", "pip", "install", "--quiet", "--python", made / "bin" / "python", wanted)
        else:
            run(sys.executable, "-m", "venv", made)
            run(made / "bin" / "python", "-m", "pip", "install", "--quiet", wanted)
        (made / "complete").touch()
    return made / "bin"


def node_client() -> Path:
    """A folder with the JavaScript client."""
    if not shutil.which("npm"):
        pytest.fail("npm is needed for the JavaScript client: install nodejs")
    made = PLACE / f"node-{NPM_VERSION}"
    if not (made / "complete").is_file():
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        (made / "package.json").write_text('{"private": true, "type": "module"}')
        run("npm", "install", "--silent", "--no-audit", "--no-fund", f"@huggingface/hub@{NPM_VERSION}", cwd=made)
        (made / "complete").touch()
    return made


def run(*words: str | Path, **options: object) -> str:
    """What a program prints; its errors are shown when it fails."""
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=600, check=False, **options)
    assert done.returncode == 0, f"{' '.join(map(str, words))}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout
