"""`medllm app`: recorded results as a page in the browser."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from medllm.cli.app import app


@app.command("app")
def app_(
    results: Annotated[
        Optional[str],  # noqa: UP045  typer shows it so
        typer.Argument(
            metavar="[RESULTS]", help="A folder, a file of records, or ORG/DATASET@REVISION.", show_default=False
        ),
    ] = None,
    live: Annotated[
        Optional[str],  # noqa: UP045  typer shows it so
        typer.Option(help="Models that answer now: JSON or its file (docs/space.md).", show_default=False),
    ] = None,
    votes: Annotated[Path, typer.Option(help="Folder that keeps the votes of the blind review.")] = Path(
        "medllm-votes"
    ),
    port: Annotated[int, typer.Option(help="The port on this machine; 0 takes a free one.")] = 7860,
    open_browser: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Show recorded results as a page in the browser.

    Six answers side by side, and what explaining costs.
    Without RESULTS (or MEDLLM_RESULTS) it shows the enclosed miniature's own.
    """
    from medllm.page.serve import PageSettings, free_port, serve

    serve(PageSettings(results=results, port=port or free_port(), open_browser=open_browser, votes=votes, live=live))
