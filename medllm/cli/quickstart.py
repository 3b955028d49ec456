"""`medllm quickstart`: the whole method on an invented medicine, trained for real, from texts to the table."""

import sys
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medllm.cli.app import app
from medllm.errors import DataError

if TYPE_CHECKING:
    from medllm.exam.record import Record
    from medllm.hub import Artifact
    from medllm.pipeline.ablation import Ablation
    from medllm.recipe.base import Stage

RECORDED = ("rpo-only", "cpt-dpo")
"""Rows of the table that the quickstart takes from the recorded run; `medllm ablate` trains them too."""

NEXT = """
Next
  medllm app {results}
      the page on these answers: six side by side, what explaining costs, every flip
  medllm ablate {recipe} --hub {hub} --work {work}
      trains the two recorded rows as well
  your own corpus    put texts beside the recipe and name them under `corpus: data:`; medllm audit TEXTS --against EXAM
  a real base        medllm check recipes/qwen2.5-0.5b.yaml
  a Job on the Hub   medllm run recipes/qwen2.5-7b.yaml --on jobs
"""


@app.command()
def quickstart(
    folder: Annotated[Path, typer.Argument(help="Where everything is written.")] = Path("quickstart"),
    set_: Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Another value for one key.")] = [],  # noqa: B006
    seed: Annotated[int, typer.Option("--seed", help="Of texts and trainings; world, base and exams stay.")] = 0,
    short: Annotated[bool, typer.Option("--short", help="Fewer texts and questions: a test run.")] = False,
) -> None:
    """Run the paper in miniature, offline, in ten minutes.

    Corpus, CPT, preferences, RPO, merge, evaluation, Space. The medicine is invented, the training is real. Rerun it
    to resume; a finished stage is not built again.
    """
    from medllm.cli.console import (
        QUICKSTART_PROGRESS_EVERY,
        QuickstartDisplay,
        handle_interrupt,
        open_reporter,
        redirect_library_output,
    )
    from medllm.hub import connect
    from medllm.miniature.corpora import SHORT, Size, prepare
    from medllm.pipeline import BuildContext, make_plan
    from medllm.pipeline import run as run_plan
    from medllm.recipe import parse_override, read_recipe

    folder.mkdir(parents=True, exist_ok=True)
    size = SHORT if short else Size()
    with (
        handle_interrupt(),
        redirect_library_output(folder / "log.txt") as console,
        open_reporter(console, QUICKSTART_PROGRESS_EVERY) as reporter,
    ):
        display = QuickstartDisplay(reporter)
        display.say(f"The paper in miniature, in {folder}/ (an invented medicine; nothing in it is real)")
        recipe = prepare(folder, recipe_file(), seed=seed, size=size)
        sound = read_recipe(recipe, dict(parse_override(setting) for setting in set_))
        with connect(str(folder / "hub"), sound.namespace) as hub:
            plan = make_plan(sound, hub)
            bench = BuildContext(hub, folder / "runs", display.note, display.progress)
            made = run_plan(plan, bench, display.launch, display.plan)
            display.finish()
            table = table_of(hub.pull(made["evaluate"]))
            results = _copy_results(hub.pull(made["evaluate"]), folder / "results")
    _print_summary(table, made, folder, results)


def recipe_file() -> Path:
    """Find the recipe of the quickstart, in the repository or in the installed package."""
    package = Path(str(resources.files("medllm")))
    for place in (package.parent / "recipes" / "quickstart.yaml", package / "miniature" / "quickstart.yaml"):
        if place.is_file():
            return place
    raise DataError(
        "command.no-quickstart", "recipes/quickstart.yaml not found. Reinstall medllm, or run in its repository."
    )


def _copy_results(evaluation: Path, results: Path) -> Path:
    """Copy the evaluation into a plain folder for `medllm app`."""
    import shutil

    shutil.rmtree(results, ignore_errors=True)
    shutil.copytree(evaluation, results)
    return results


def table_of(evaluation: Path) -> "Ablation":
    """Return this run's rows, and the recorded rows that only `ablate` trains if the exam is the recorded one."""
    from medllm.exam.record import read_records
    from medllm.miniature.corpora import RESULTS
    from medllm.pipeline.ablation import Ablation

    records: list[Record] = list(read_records(evaluation))
    if RESULTS.is_dir():
        asked = {_question(record) for record in records}
        recorded = [record for record in read_records(RESULTS) if record.model in RECORDED]
        if {_question(row) for row in recorded} == asked:
            records += recorded
    return Ablation.of_records(records)


def _question(record: "Record") -> tuple[object, ...]:
    return record.question_id, record.year, record.category, record.points_total, record.group


def _print_summary(table: "Ablation", made: Mapping["Stage", "Artifact"], folder: Path, results: Path) -> None:
    """Print the table, where the figure and all outputs are, and what to type next."""
    from medllm.pipeline.ablation import draw_rows

    figure = folder / "table.svg"
    draw_rows(table, figure)
    lines = table.lines()
    recorded = [name for name in RECORDED if name in table.rows]
    for number, line in enumerate(lines):
        if line.split()[:1] and line.split()[0] in recorded:
            lines[number] = f"{line}   (recorded)"
    print("\n".join(lines))
    if recorded:
        print(f"\n(recorded): {', '.join(recorded)} come from the shipped run; the other rows are yours.")
    print(f"\nFigure    {figure}\nRecipe    {folder / 'quickstart.yaml'}\nHub       {folder / 'hub'}")
    for stage, artifact in made.items():
        print(f"{stage:<12}{artifact.repo_id}@{artifact.revision[:7]}")
    sys.stdout.write(
        NEXT.format(results=results, recipe=folder / "quickstart.yaml", hub=folder / "hub", work=folder / "runs")
    )
