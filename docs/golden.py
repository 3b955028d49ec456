"""Make the miniature's recorded results anew by the commands users type: every row on every seed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from medllm.exam.record import read_records, write_records
from medllm.exam.stability.report import stability_report
from medllm.exam.stability.text import report_json
from medllm.hub import connect, digest_of_folder
from medllm.miniature.corpora import RESULTS
from medllm.recipe import read_recipe

SEEDS = (0, 1, 2)
WORK = Path("runs") / "golden"


def main(seeds: tuple[int, ...] = SEEDS) -> None:
    """Train and ask every row on every seed; the first seed's answers and all tables replace the recorded ones.

    What a seed has made already stays: run again after an interruption, it goes on.
    """
    tables = {str(seed): rows_of(seed) for seed in seeds}
    record(WORK / f"seed-{seeds[0]}", tables)


def rows_of(seed: int) -> object:
    """The six rows of one seed, as `medllm ablate --json` tells them."""
    folder = WORK / f"seed-{seed}"
    medllm("quickstart", str(folder), "--seed", str(seed))
    printed = medllm("ablate", str(folder / "quickstart.yaml"), "--hub", str(folder / "hub"),
                  "--work", str(folder / "runs"), "--yes", "--json")  # fmt: skip
    return json.loads(printed)["rows"]


def medllm(*words: str) -> str:
    """Run a command as a user would; its results come back, its progress is shown."""
    command = [sys.executable, "-m", "medllm.cli", *words]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def record(folder: Path, tables: dict[str, object]) -> None:
    """The evaluation of all rows of one seed as one folder, with the tables of every seed beside it."""
    recipe = read_recipe(folder / "quickstart.yaml")
    out = RESULTS.with_name("results.new")
    shutil.rmtree(out, ignore_errors=True)
    with connect(str(folder / "hub"), recipe.namespace) as hub:
        names = {"": None, **{f"-{row}": row for row in recipe.ablations}}
        pulled = {
            row: hub.pull(hub.resolve(f"{recipe.namespace}/{recipe.name}{end}-evaluate", "dataset", "main"))
            for end, row in names.items()
        }
    shutil.copytree(pulled[None], out, ignore=shutil.ignore_patterns("README.md", ".*"))
    for row, evaluation in pulled.items():
        if row is not None:
            write_records(
                [one for one in read_records(evaluation) if one.model == row], out / "records" / f"{row}.parquet"
            )
    values = report_json(stability_report(read_records(out)))
    (out / "results.json").write_text(json.dumps(values, ensure_ascii=False, indent=1, default=str) + "\n", "utf-8")
    (out / "seeds.json").write_text(json.dumps(tables, indent=1) + "\n", "utf-8")
    shutil.rmtree(RESULTS, ignore_errors=True)
    out.replace(RESULTS)
    print(f"recorded {RESULTS}, digest {digest_of_folder(RESULTS)}")


if __name__ == "__main__":
    main(tuple(int(word) for word in sys.argv[1:]) or SEEDS)
