"""One stage over several processes: `accelerate launch` on this module, which reads what the stage was given."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path

import yaml

from medllm.errors import TrainingError
from medllm.recipe.settings import Cpt, Rpo

LAUNCHED = "MEDLLM_LAUNCHED"
"""Set for the processes that were started here, which must not start any themselves."""
SETTINGS: dict[str, type[Cpt] | type[Rpo]] = {"cpt": Cpt, "rpo": Rpo}


def launch_elsewhere(stage: str, settings: Cpt | Rpo, sources: dict[str, Path], out: Path) -> bool:
    """Run the stage under `accelerate launch` when its settings ask for it and we are not there already."""
    if settings.accelerate is None or LAUNCHED in os.environ or "RANK" in os.environ:
        return False
    config = Path(settings.accelerate)
    if not config.is_file():
        raise TrainingError(
            f"{stage}.accelerate: there is no file {config}. See recipes/accelerate/ for those we ship."
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    given = out.with_name(out.name + ".given.json")
    places = {name: str(path.absolute()) for name, path in sources.items()}
    given.write_text(
        json.dumps({"stage": stage, "settings": settings.model_dump(mode="json"), "sources": places}), "utf-8"
    )
    words = [*_launcher(config), "-m", "medllm.training.launched", str(given), str(out)]
    code = _while_we_live(words, {**os.environ, LAUNCHED: "1", **_on_cpu(config)})
    given.unlink()
    if code or not (out / "facts.json").is_file():
        raise TrainingError(
            f"{stage}: the processes started with {config} ended with code {code}; their messages stand "
            "above. Run again to go on from the last checkpoint."
        )
    return True


def _while_we_live(words: list[str], environment: dict[str, str]) -> int:
    """Run a program whose processes end with this one, even when it is killed: the pipe they hold then closes."""
    theirs, ours = os.pipe()
    try:
        return subprocess.run(words, env=environment, stdin=theirs, check=False).returncode
    finally:
        os.close(theirs)
        os.close(ours)


def _end_with_the_run() -> None:
    """End when the run that started us is gone: it would otherwise be gone on with while we still write."""

    def wait() -> None:
        os.read(0, 1)
        os._exit(1)

    threading.Thread(target=wait, name="end with the run", daemon=True).start()


def _launcher(config: Path) -> list[str]:
    """Accelerate's own launcher; on a CPU it wants MPI for several processes, and torch's does without."""
    told = yaml.safe_load(config.read_text("utf-8"))
    if told.get("distributed_type") == "MULTI_CPU":
        # On a free port: at its usual one, two trainings on the same machine would be in each other's way.
        alone = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        return [*alone, "--nproc_per_node", str(told["num_processes"])]
    return [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]


def _on_cpu(config: Path) -> dict[str, str]:
    told = yaml.safe_load(config.read_text("utf-8"))
    return {"ACCELERATE_USE_CPU": "true"} if told.get("use_cpu") else {}


def main() -> None:
    """Be one of the processes."""
    _end_with_the_run()
    given, out = (Path(argument) for argument in sys.argv[1:3])
    read = json.loads(given.read_text("utf-8"))
    stage = read["stage"]
    settings = SETTINGS[stage].model_validate(read["settings"])
    sources = {name: Path(path) for name, path in read["sources"].items()}
    import_module(f"medllm.stages.{stage}").make(settings, sources, out)


if __name__ == "__main__":
    main()
