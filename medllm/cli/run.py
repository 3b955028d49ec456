"""The commands around the pipeline: run, ablate, status, trace."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from medllm.cli.edge import app

RecipeFile = Annotated[Path, typer.Argument(help="The recipe, a YAML file.", show_default=False)]
HubOption = Annotated[
    Optional[str],  # noqa: UP045  typer shows it so
    typer.Option(
        "--hub", metavar="URL|DIR", help="The Hub: an address, or a folder for a local one.", show_default=False
    ),
]
SetOption = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Another value for one key.")]
WorkOption = Annotated[Path, typer.Option("--work", help="Folder for work in progress.")]


@app.command()
def run(
    recipe: RecipeFile,
    stages: Annotated[Optional[list[str]], typer.Argument(help="Only these, and what they need.")] = None,  # noqa: UP045
    hub: HubOption = None,
    on: Annotated[str, typer.Option("--on", metavar="here|jobs|slurm|autotrain", help="Where to make it.")] = "here",
    set_: SetOption = [],  # noqa: B006  typer copies it
    work: WorkOption = Path("runs"),
    yes: Annotated[bool, typer.Option("--yes", help="Remake what the plan says without asking.")] = False,
) -> None:
    """Make what is missing, in order, and publish it: resolve, pull, make, card, push, tag."""
    from medllm.cli.telling import asked, teller
    from medllm.hub import connect
    from medllm.launch import launcher
    from medllm.pipeline import Bench, make_plan
    from medllm.pipeline import run as run_plan
    from medllm.recipe import parse_override, read_recipe

    sound = read_recipe(recipe, dict(parse_override(one) for one in set_))
    launch = launcher(on)
    with connect(hub) as there, teller() as say:
        plan = make_plan(sound, there, tuple(stages or ()))
        made = run_plan(plan, Bench(there, work, say), launch, asked(say, yes))
    for stage, artifact in made.items():
        print(f"{stage}\t{artifact}")
