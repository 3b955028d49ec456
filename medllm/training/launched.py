"""One stage over several processes: `accelerate launch` on this module, which reads what the stage was given."""

from __future__ import annotations

import json
import os
import shutil
import sys
from importlib import import_module
from pathlib import Path

import yaml

from medllm.errors import MedllmError, TrainingError
from medllm.foreign_messages import silence_known_messages
from medllm.processes import exit_with_stdin
from medllm.recipe.settings import Cpt, Rpo
from medllm.recipe.training import NAMED
from medllm.training import launcher
from medllm.training.devices import refuse_config

SETTINGS: dict[str, type[Cpt] | type[Rpo]] = {"cpt": Cpt, "rpo": Rpo}


def launch_processes(stage: str, settings: Cpt | Rpo, sources: dict[str, Path], out: Path) -> bool:
    """Run the stage under `accelerate launch` when its settings ask for it and we are not there already."""
    if settings.accelerate is None or launcher.FOLDER in os.environ or "RANK" in os.environ:
        return False
    config = Path(settings.accelerate)
    if settings.accelerate in NAMED:  # one device: there is nothing to divide
        return False
    if not config.is_file():
        raise TrainingError(
            "training.no-accelerate-config",
            f"{stage}.accelerate: there is no file {config}. Write {' or '.join(NAMED)}, or the path of a config file.",
        )
    refuse_config(stage, settings, yaml.safe_load(config.read_text("utf-8")))
    out.parent.mkdir(parents=True, exist_ok=True)
    given = out.with_name(out.name + ".given.json")
    places = {name: str(path.absolute()) for name, path in sources.items()}
    given.write_text(
        json.dumps({"stage": stage, "settings": settings.model_dump(mode="json"), "sources": places}), "utf-8"
    )
    folder = out.with_name(out.name + ".processes")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    words = launcher.command(config, str(given), str(out))
    try:
        code = launcher.run(words, {**os.environ, launcher.FOLDER: str(folder.absolute()), **launcher.on_cpu(config)})
        fault, stopped = launcher.first_fault(folder), launcher.was_stopped(folder)
    finally:
        given.unlink()
        shutil.rmtree(folder, ignore_errors=True)
    if stopped:
        raise TrainingError("training.stopped-on-request", f"{fault} All processes have ended.")
    if code or not (out / "facts.json").is_file():
        why = f"{fault.rstrip('.')}. All processes have ended" if fault else f"the processes ended with code {code}"
        raise TrainingError(
            "training.process-failed",
            f"{stage}: {why}; the log above has more. Run again to continue from the last checkpoint.",
        )
    return True


def main() -> None:
    """Be one of the processes."""
    silence_known_messages()
    exit_with_stdin()  # so that a resumed run never writes at the same time as this process
    launcher.enlist()
    given, out = (Path(argument) for argument in sys.argv[1:3])
    read = json.loads(given.read_text("utf-8"))
    stage = read["stage"]
    settings = SETTINGS[stage].model_validate(read["settings"])
    sources = {name: Path(path) for name, path in read["sources"].items()}
    try:
        import_module(f"medllm.stages.{stage}").make(settings, sources, out)
    except MedllmError as fault:
        launcher.leave_fault(fault)
        sys.exit(f"{stage}: {fault}")  # a foreseen fault needs no traceback from each process
    except BaseException as fault:
        launcher.leave_fault(fault)
        raise


if __name__ == "__main__":
    main()
