"""`medllm audit`: search texts for questions of held-out exams."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from medllm.cli.app import app
from medllm.library.functions import exam_folders

if TYPE_CHECKING:
    from medllm.corpus.decontaminate.report import AuditReport

LEAK_EXIT_CODE = 3
"""The exit code of `--fail` when an exam item leaked; 1 is an error, 2 a wrong command line."""

LINES = 20
"""Matches that are printed; the pages and the JSON have all."""


@app.command()
def audit(  # noqa: PLR0913  an option each
    texts: Annotated[Path, typer.Argument(help="A file or folder: JSONL, Parquet, CSV, text, HTML, PDF.")],
    against: Annotated[
        list[str], typer.Option(metavar="NAME[=DIR]", help="A held-out exam, and its folder; may be given again.")
    ],
    data: Annotated[
        Optional[Path],  # noqa: UP045  typer shows it so
        typer.Option(help="One exam's folder, or one with a folder for each exam.", show_default=False),
    ] = None,
    page: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="The HTML page; else audit-EXAM.html for each exam.", show_default=False),
    ] = None,
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
    fail: Annotated[bool, typer.Option("--fail", help="Exit with code 3 when an exam item leaked.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole report as JSON.")] = False,
) -> None:
    """Find held-out exam questions in texts.

    In any order of their options. Each exam has a page with the matches marked in their text. Matches by meaning
    (--encoder) are for a person to judge and never count as leaked.
    """
    from medllm.corpus.decontaminate.audit import AuditRequest, audit_source
    from medllm.corpus.decontaminate.exam_items import distinct, held_out
    from medllm.corpus.decontaminate.report import write_page
    from medllm.corpus.read.sources import TextSource

    items = {name: distinct(held_out([(name, folder)])) for name, folder in exam_folders(against, data).items()}
    source = TextSource(str(texts), texts, columns={} if column == "text" else {"text": column})
    everything = tuple(item for of_exam in items.values() for item in of_exam)
    report = audit_source(source, AuditRequest(everything, stage, encoder=encoder, alike=alike), workers=workers)
    for name, of_exam in items.items():
        path = page_of(name, page, several=len(items) > 1)
        write_page(report.against(name, len(of_exam)), f"{texts} against {name}", path)
        typer.echo(f"The matches with {name} are marked in {path}.", err=True)
    if as_json:
        typer.echo(json.dumps(report.as_dict(), ensure_ascii=False))
    else:
        typer.echo("\n".join(_lines(report, list(items))))
    if fail and report.leaked:
        raise typer.Exit(LEAK_EXIT_CODE)


def page_of(exam: str, page: Path | None, *, several: bool) -> Path:
    """Return the place of an exam's page; of several exams none overwrites another's.

    >>> print(page_of("igakuqa", None, several=False), page_of("igakuqa", Path("out/report.html"), several=True))
    audit-igakuqa.html out/report-igakuqa.html
    """
    if page is None:
        return Path(f"audit-{exam}.html")
    return page.with_stem(f"{page.stem}-{exam}") if several else page


def _lines(report: "AuditReport", exams: list[str]) -> Iterator[str]:
    totals = report.totals()
    yield f"{totals['documents']:,} documents against {totals['items']:,} items of {', '.join(exams)}"
    yield f"to drop {totals['documents_to_drop']:,}, to review {totals['documents_to_review']:,} documents"
    yield f"leaked {totals['items_leaked']:,}, to review {totals['items_to_review']:,} items"
    for reason, number in totals["unread"].items():
        yield f"not audited, because {reason}: {number:,}"
    worst = sorted(report.found, key=lambda one: (one.verdict, -one.containment))  # drop comes before review
    for one in worst[:LINES]:
        yield f"{one.verdict}  {one.document}  {one.item}  {one.containment:.2f} ({one.part})"
    if len(worst) > LINES:
        yield f"and {len(worst) - LINES:,} more; --json lists all"
