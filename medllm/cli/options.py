"""Options that several commands share, so that they mean the same everywhere."""

from pathlib import Path
from typing import Annotated, Optional

import typer

RecipeFile = Annotated[Path, typer.Argument(help="The recipe, a YAML file.", show_default=False)]
HubOption = Annotated[
    Optional[str],  # noqa: UP045  typer shows it so
    typer.Option("--hub", metavar="URL|DIR", help="The Hub: a URL, or a folder for a local Hub.", show_default=False),
]
SetOption = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override one key.")]
OnOption = Annotated[str, typer.Option("--on", metavar="local|jobs|slurm|autotrain", help="Where to build it.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Rebuild what the plan lists without asking.")]
RestoreOption = Annotated[bool, typer.Option("--restore", help="Bring back what was deleted on the Hub.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
WorkOption = Annotated[Path, typer.Option("--work", help="Folder for work in progress.")]
