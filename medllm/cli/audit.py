"""`medllm audit`: search texts for questions of a held-out exam."""

import json
import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from medllm.cli.app import app


@app.command()
def audit(  # noqa: PLR0913  an option each
    texts: Annotated[Path, typer.Argument(help="A file or folder: JSONL, Parquet, CSV, text, HTML, PDF.")],
    against: Annotated[list[str], typer.Option(help="A held-out exam, as igakuqa; may be given again.")],
    data: Annotated[Path, typer.Option(help="One exam's folder, or one with a folder for each exam.")],
    page: Annotated[Path, typer.Option(help="Where the HTML page goes.")] = Path("audit.html"),
    column: Annotated[str, typer.Option(help="The column that holds the text.")] = "text",
    stage: Annotated[
        Literal["corpus", "preferences", "few-shot", "teacher"],
        typer.Option(help="What the texts are, for the report."),
    ] = "corpus",
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = min(2, os.cpu_count() or 1),
    encoder: Annotated[
        Path | None, typer.Option(help="Folder of a sentence encoder, to search by meaning too.")
    ] = None,
    alike: Annotated[float, typer.Option(min=0, max=1, help="Cosine from which --encoder shows a text.")] = 0.9,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole report as JSON.")] = False,
) -> None:
    """Find held-out exam questions in texts.

    In any order of their options; a page shows the matches, marked in their text.
    """
    from medllm.corpus.decontaminate.audit import AuditRequest, audit_source
    from medllm.corpus.decontaminate.exam_items import exam_folder, held_out
    from medllm.corpus.decontaminate.report import write_page
    from medllm.corpus.read.sources import TextSource

    items = held_out([(name, exam_folder(data, name)) for name in against])
    source = TextSource(str(texts), texts, columns={} if column == "text" else {"text": column})
    report = audit_source(source, AuditRequest(tuple(items), stage, encoder=encoder, alike=alike), workers=workers)
    write_page(report, str(texts), page)
    typer.echo(f"The matches are marked in {page}.", err=True)
    if as_json:
        typer.echo(json.dumps(report.as_dict(), ensure_ascii=False))
        return
    totals = report.totals()
    typer.echo(f"{totals['documents']:,} documents against {totals['items']:,} items of {', '.join(against)}")
    typer.echo(f"to drop {totals['documents_to_drop']:,}, to review {totals['documents_to_review']:,} documents")
    typer.echo(f"leaked {totals['items_leaked']:,}, to review {totals['items_to_review']:,} items")
    for reason, number in totals["unread"].items():
        typer.echo(f"not audited, because {reason}: {number:,}")
