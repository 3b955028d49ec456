# /// script
# requires-python = ">=3.11"
# dependencies = ["huggingface_hub>=2.4,<3"]
# ///
"""The script that a Job runs: fetch the package as it was pushed, then `medllm run` the one stage."""

import base64
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from huggingface_hub import snapshot_download


def main() -> int:
    """Run the stage in a process that uses the Hub of this Job; the token comes and stays in the environment."""
    repo_id, _, revision = os.environ["MEDLLM_CODE"].partition("@")
    code = snapshot_download(repo_id, repo_type="dataset", revision=revision)
    folder = Path(tempfile.mkdtemp(prefix="medllm-"))
    # On the machine that sent the Job the recipe is beside the folders it names; on the Hub it is alone.
    recipe = Path(os.environ["MEDLLM_FOLDER"] or folder) / f".job-{folder.name}.yaml"
    recipe.write_bytes(base64.b64decode(os.environ["MEDLLM_RECIPE"]))
    if beside := os.environ.get("MEDLLM_ACCELERATE_AT"):
        config = recipe.parent / beside
        if not config.exists():
            config.parent.mkdir(parents=True, exist_ok=True)
            config.write_bytes(base64.b64decode(os.environ["MEDLLM_ACCELERATE"]))
    command = [sys.executable, "-c", "from medllm.cli import main; main()", "run", str(recipe)]
    command += [os.environ["MEDLLM_STAGE"], "--yes", "--work", str(folder / "runs")]
    command += ["--keep-every", os.environ["MEDLLM_KEEP_EVERY"]]
    search = os.pathsep.join(filter(None, [code, os.environ.get("PYTHONPATH")]))
    try:
        return subprocess.run(command, env={**os.environ, "PYTHONPATH": search}, check=False).returncode
    finally:
        recipe.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
