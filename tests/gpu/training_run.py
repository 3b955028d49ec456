"""One training as `medllm run` starts it, in a process of its own: `python -m tests.gpu.training_run GIVEN.json`."""

import json
import sys
from pathlib import Path

from medllm.launch.local import maker_of
from medllm.recipe.settings import Cpt, Rpo


def main() -> None:
    """Train by all GPUs that this process sees."""
    given = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    settings = {"cpt": Cpt, "rpo": Rpo}[given["stage"]].model_validate(given["settings"])
    sources = {name: Path(path) for name, path in given["sources"].items()}
    maker_of(given["stage"])(settings, sources, Path(given["out"]))


if __name__ == "__main__":
    main()
