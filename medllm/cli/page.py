"""`medllm app`, recorded results as a page in the browser, and `medllm votes`, the figures of its blind review."""

import json
import re
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from medllm.cli.app import HubOption, JsonOption, app


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


ON_THE_HUB = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:@([\w./-]+))?")


@app.command()
def votes(
    folder: Annotated[
        str, typer.Argument(metavar="FOLDER", help="Folder of the votes, or ORG/DATASET@REVISION.", show_default=False)
    ],
    json_: JsonOption = False,
    csv: Annotated[
        Optional[Path],  # noqa: UP045  typer shows it so
        typer.Option("--csv", metavar="OUT", help="Write every vote to this CSV file.", show_default=False),
    ] = None,
    cluster: Annotated[
        str, typer.Option(metavar="question|rater", help="What the bootstrap of strengths draws whole.")
    ] = "question",
    hub: HubOption = None,
) -> None:
    """Show win rates, strengths and agreement of a blind review.

    Of each rater's votes on one pair the last counts. Every interval is a 95 % interval.
    """
    from medllm.errors import DataError
    from medllm.files import write_text
    from medllm.votes.journal import read_votes
    from medllm.votes.statistics import report_lines, vote_report, votes_csv

    if cluster not in ("question", "rater"):
        raise DataError("command.unknown-value", f"--cluster {cluster}: is unknown. Give question or rater.")
    recorded = read_votes(_folder(folder, hub))
    report = vote_report(recorded, "rater" if cluster == "rater" else "question")
    if json_:
        print(json.dumps(report.to_json(), ensure_ascii=False, indent=2, allow_nan=False))
    else:
        print("\n".join(report_lines(report)))
    if csv is not None:
        write_text(csv, votes_csv(recorded))
        print(f"medllm: wrote {len(recorded)} votes to {csv}", file=sys.stderr)


def _folder(given: str, hub: str | None) -> Path:
    """Return the folder that holds the votes; a dataset that is no folder here is pulled."""
    from medllm.hub import connect

    named = None if Path(given).exists() else ON_THE_HUB.fullmatch(given)
    if named is None:
        return Path(given)
    with connect(hub) as reached:
        return reached.pull(reached.resolve(named[1], "dataset", named[2] or "main"))
