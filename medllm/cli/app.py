"""The Typer application on which the commands register, and the options that several of them share."""

import os
from pathlib import Path
from typing import Annotated, Optional

import typer
import typer.core

from medllm import __version__
from medllm.foreign_messages import silence_known_messages

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


ORDER = (
    "quickstart",
    "evaluate",
    "check",
    "run",
    "ablate",
    "status",
    "trace",
    "forget",
    "clean",
    "ask",
    "score",
    "stability",
    "compare",
    "power",
    "exam",
    "audit",
    "merge",
    "votes",
    "hub",
    "app",
)
"""The order of the commands in the help: before a run, the run, its results, then single tools."""


class OrderedGroup(typer.core.TyperGroup):
    """Lists the commands in the order of ORDER, not by the alphabet."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """Return the names of the commands; an unlisted one comes last, which a test reports."""
        return sorted(super().list_commands(ctx), key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))


app = typer.Typer(
    cls=OrderedGroup,
    name="medllm",
    help="Train medical LLMs that keep their accuracy when they explain.",
    epilog="`medllm COMMAND -h` explains a command; docs/commands.md has all of them.",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"medllm {__version__}")
        raise typer.Exit


@app.callback()
def medllm(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Train medical language models that keep their accuracy when they explain, on the Hugging Face Hub."""
    # Disable telemetry unless the user opts in.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    silence_known_messages()
