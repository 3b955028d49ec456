"""The package itself as a private dataset on the Hub, so that a Job runs exactly the local code."""

import shutil
import tempfile
from pathlib import Path

import medllm
from medllm.hub import Artifact, Hub, digest_of_folder
from medllm.hub.push import push_once_tagged

TEMPLATES = ("model_card", "dataset_cards")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc")


def push_package(hub: Hub, namespace: str) -> Artifact:
    """Push the package unless the Hub already holds it, byte for byte, under the tag of its content."""
    package = Path(medllm.__file__).parent
    with tempfile.TemporaryDirectory() as aside:
        folder = Path(aside) / "code"
        shutil.copytree(package, folder / "medllm", ignore=LEFT_OUT)
        for name in TEMPLATES:
            if (package.parent / name).is_dir():
                shutil.copytree(package.parent / name, folder / name, ignore=LEFT_OUT)
        tag = "code-" + digest_of_folder(folder).removeprefix("sha256:")[:12]
        return push_once_tagged(hub, folder, f"{namespace}/medllm-code", "dataset", tag)
