"""The `space` stage: the folder of a Space that shows the results, ready to be pushed and to run as it is."""

import re
import shutil
from importlib.metadata import requires, version
from pathlib import Path

from medllm.recipe.settings import Space
from medllm.stages.workdir import move_into_place, work_folder, write_facts

PACKAGE = Path(__file__).parent.parent
ENTRY = '''"""The Space: `python app.py` shows recorded results in the browser; what it does lives in medllm.page."""

from medllm.page.__main__ import main

if __name__ == "__main__":
    main()
'''
"""The content of app.py, here and in the project's root."""

LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
EXTRAS = {"none": ("space",), "endpoint": ("space",), "inference": ("space",), "adapters": ("space", "train")}
"""What a Space needs installed, by how it answers; `zerogpu` needs what `adapters` needs."""


def make(settings: Space, sources: dict[str, Path], out: Path) -> None:
    """Lay out the Space: app.py, the package, requirements and the results; where they came from is the card's part."""
    if (out / "facts.json").is_file():
        return
    work = work_folder(out)
    results = sources[settings.results]
    _copy_package(work)
    (work / "app.py").write_text(ENTRY, encoding="utf-8")
    needed = requirements(EXTRAS.get(settings.live, EXTRAS["adapters"]))
    if settings.live == "zerogpu":
        needed.append("spaces")
    if settings.sign_in:
        needed += [f"gradio[oauth]=={version('gradio')}"]
    (work / "requirements.txt").write_text("\n".join(needed) + "\n", encoding="utf-8")
    shutil.copytree(results, work / "results", dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*", "README.md"))
    write_facts(work, _facts(settings, work / "results"))
    move_into_place(work, out, ())


def _copy_package(work: Path) -> None:
    """Copy the package and its card templates into the Space's folder."""
    shutil.copytree(PACKAGE, work / "medllm", dirs_exist_ok=True, ignore=LEFT_OUT)
    for name in ("dataset_cards", "model_card"):
        inside = PACKAGE / name
        package_file = inside if inside.is_dir() else PACKAGE.parent / name
        shutil.copytree(package_file, work / "medllm" / name, dirs_exist_ok=True, ignore=LEFT_OUT)


def requirements(extras: tuple[str, ...]) -> list[str]:
    """What the project declares for itself and for these extras, as lines of a requirements file.

    >>> any(line.startswith("gradio==") for line in requirements(("space",)))
    True
    """
    wanted = set()
    for line in requires("medllm") or ():
        need, _, condition = (part.strip() for part in line.partition(";"))
        extra = re.search(r"extra == ['\"](\w+)['\"]", condition)
        if (extra is None or extra[1] in extras) and not need.startswith("medllm"):
            wanted.add(need)
    return sorted(wanted)


def _facts(settings: Space, results: Path) -> dict[str, object]:
    return {
        "title": settings.title,
        "live": settings.live,
        "hardware": settings.hardware,
        "votes": settings.votes,
        "sign_in": settings.sign_in,
        "sdk_version": version("gradio"),
        "models_shown": _models(results),
        "files": sum(1 for path in results.rglob("*") if path.is_file()),
    }


def _models(results: Path) -> list[str]:
    import pyarrow.parquet as pq

    names: dict[str, None] = {}
    for file in sorted((results / "records").glob("*.parquet")):
        names |= dict.fromkeys(pq.read_table(file, columns=["model"]).column("model").unique().to_pylist())
    return list(names)
