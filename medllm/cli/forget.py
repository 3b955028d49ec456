"""`medllm forget`: withdraw a row from everything that holds it or was made from it."""

from pathlib import Path
from typing import Annotated

import typer

from medllm.cli.app import app
from medllm.cli.options import HubOption, WorkOption


@app.command()
def forget(
    repo: Annotated[str, typer.Argument(metavar="ORG/NAME", help="A corpus, pairs or a source.", show_default=False)],
    rows: Annotated[list[str], typer.Argument(help="Its rows: an id, question_id or locator.", show_default=False)],
    hub: HubOption = None,
    work: WorkOption = Path("runs"),
    yes: Annotated[bool, typer.Option("--yes", help="Delete what is listed.")] = False,
) -> None:
    """Withdraw rows, and delete all that was made from them.

    Lists the versions, branches, folders and caches that hold a row or learnt it, in the order of their deletion, each
    with its reason; --yes deletes them, and later corpora drop the row as `forgotten`. Interrupted, it goes on when
    you type it again.
    """
    from medllm.cli.console import handle_interrupt, log
    from medllm.hub import connect
    from medllm.pipeline.forget import carry_out, left_to_people, withdrawal
    from medllm.pipeline.trace import owner_of

    with handle_interrupt(), connect(hub, owner_of(repo), say=log) as there:
        for row in rows:
            plan = withdrawal(there, repo, row, work)
            print(f"{row}, in {', '.join(sorted({str(one.artifact) for one in plan.rows}))}:")
            print("\n".join(plan.lines()))
            if yes:
                for line in carry_out(there, plan):
                    log(line)
            print("Left to people:\n" + "\n".join(f"- {line}" for line in left_to_people(there, plan)))
    if not yes:
        print("Nothing was deleted: run the same command with --yes")
