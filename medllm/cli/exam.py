"""The commands on exams: `medllm exam` imports and writes their questions, `medllm audit` searches texts for them."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from medllm.cli.app import app
from medllm.errors import DataError
from medllm.library.functions import exam_folders

if TYPE_CHECKING:
    from medllm.corpus.decontaminate.audit import AuditReport
    from medllm.exam_import import Columns, ImportedExam, Sheet

exam = typer.Typer(name="exam", help="Exams of one's own.", no_args_is_help=True)
app.add_typer(exam)

SHOWN = 20
"""Faulty rows that an error lists."""


@exam.command(name="import")
def import_(  # noqa: PLR0913  an option each
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A .xlsx, .xls, .ods, .csv, .tsv, .json or .jsonl file.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The exam's new folder; its name is the exam's.")],
    columns: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--columns", metavar="FIELD=HEADING,...", help="Name columns: text=問題文,choices=A..E,answer=正解."
        ),
    ] = None,
    sheet: Annotated[str | None, typer.Option("--sheet", help="The sheet of a workbook with several.")] = None,
    first_choice: Annotated[
        int | None, typer.Option("--first-choice", min=0, max=1, help="The first choice's number.")
    ] = None,
    kana: Annotated[
        Optional[Literal["aiueo", "iroha"]],  # noqa: UP045
        typer.Option("--kana", help="The order of kana in keys."),
    ] = None,
    skip_faulty: Annotated[bool, typer.Option("--skip-faulty", help="Leave faulty rows out, and list them.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Accept guessed columns without a question.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Import an exam of your own: questions.jsonl and a report.

    Columns are found by their headings; where only the cells suggest one, the command asks. Keys are numbers, letters
    (full-width too), kana, circled numbers, the text of a choice, or a number with a unit.
    """
    from medllm.exam_import import guess_columns, import_rows, parse_columns, read_sheet, write_exam
    from medllm.exam_import import report as import_report

    table = read_sheet(file, sheet)
    guessed = guess_columns(table, parse_columns(columns or [], table))
    _confirm(table, guessed, accepted=yes)
    imported = import_rows(table, guessed, first_choice=first_choice, kana=kana)
    if imported.faults and not skip_faulty:
        raise _faulty(table, imported)
    write_exam(imported, out, str(file), guessed)
    if as_json:
        print(json.dumps(import_report(imported, str(file), guessed), ensure_ascii=False, indent=2))
    else:
        _show(table, guessed, imported, out)


@exam.command()
def prompts(
    name: Annotated[str, typer.Argument(metavar="EXAM", help="A known exam, or the folder of your own.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the files, EXAM-MODE.jsonl.")],
    data: Annotated[str | None, typer.Option("--data", metavar="DIR", help="Where the exam is.")] = None,
    modes: Annotated[str | None, typer.Option("--modes", help="Ways of asking, as plain,explain.")] = None,
    shots: Annotated[int | None, typer.Option(help="Worked examples; else up to 3 if there are any.")] = None,
    years: Annotated[str | None, typer.Option(help="Only these years, as 2018-2020,2022.")] = None,
) -> None:
    """Write an exam's prompts, for other harnesses.

    One question a line: its prompt as text and as messages, the key, and the strings that end a reply. `integrations/`
    has tasks for lm-evaluation-harness and Inspect that read them.
    """
    from medllm.evaluation import write_prompts
    from medllm.recipe.evaluation import evaluation_recipe, years_of

    recipe = evaluation_recipe(
        ["any/model"],
        [name],
        data=[data] if data else (),
        prompts=modes.split(",") if modes else None,
        shots=shots,
        years=years_of(years) if years else None,
    )
    assert recipe.evaluate is not None
    sources = {exam_name: Path(exam.source) for exam_name, exam in recipe.exams.items()}
    if missing := [benchmark for benchmark in recipe.evaluate.benchmarks if benchmark not in sources]:
        raise DataError("command.no-data", f"--data is missing: the folder of {missing[0]}.")
    for path, count in write_prompts(recipe.evaluate, sources, out):
        print(f"{path}: {count} prompts")


def _confirm(table: "Sheet", columns: "Columns", *, accepted: bool) -> None:
    """Stop where a needed column is missing; ask where one was found by its cells alone."""
    headings = ", ".join(table.headings)
    if columns.missing:
        raise DataError(
            "exam.column-not-found",
            f"{table.place}: no column for {' and '.join(columns.missing)} was found. Name it: --columns"
            f" {columns.missing[0]}=HEADING, with a heading of {headings}.",
        )
    if not columns.unsure or accepted:
        return
    guess = ", ".join(f"{name} = {columns.fields[name]}" for name in columns.unsure)
    if sys.stdin.isatty() and typer.confirm(f"By their cells: {guess}. Is that right?", err=True):
        return
    raise DataError(
        "exam.column-unsure",
        f"{table.place}: by its cells alone it seems that {guess}. Confirm with --yes, or write --columns"
        f" {columns.option()} with the right ones of {headings}.",
    )


def _faulty(table: "Sheet", imported: "ImportedExam") -> DataError:
    listed = "\n".join(f"  row {fault.row}: {fault.text}" for fault in imported.faults[:SHOWN])
    more = f"\n  and {len(imported.faults) - SHOWN} more" if len(imported.faults) > SHOWN else ""
    return DataError(
        "exam.faulty-rows",
        f"{table.place}: {len(imported.faults)} of {len(table.rows)} rows are no questions. Correct them, or leave"
        f" them out with --skip-faulty.\n{listed}{more}",
    )


def _show(table: "Sheet", columns: "Columns", imported: "ImportedExam", out: Path) -> None:
    years = ", ".join(f"{year}: {count}" for year, count in imported.years().items())
    print(f"{len(imported.questions)} questions of {table.place} are in {out}" + (f" ({years})" if years else ""))
    for line in columns.lines():
        print(f"  {line}")
    if columns.unused:
        print(f"  not used: {', '.join(columns.unused)}")
    for fault in imported.faults:
        print(f"  left out: row {fault.row}: {fault.text}")
    for note in imported.notes:
        print(f"  note: {note}")
    days = [row["exam_date"] for row in imported.questions if row.get("exam_date")]
    first = f", first: {min(days)}" if len(days) == len(imported.questions) and days else ""
    source = out if out.is_absolute() else f"./{out.as_posix()}"
    print(f"Next: medllm evaluate MODEL --on {source}, or medllm score {out.name} PREDICTIONS --data {out}")
    print(f"or in a recipe: `exams: {{{out.name}: {{source: {source}{first}}}}}`")


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
    from medllm.corpus.decontaminate.audit import AuditRequest, audit_source, write_page
    from medllm.corpus.decontaminate.exam_items import distinct, held_out
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
    worst = sorted(
        report.findings, key=lambda finding: (finding.verdict, -finding.containment)
    )  # drop comes before review
    for finding in worst[:LINES]:
        yield f"{finding.verdict}  {finding.document}  {finding.item}  {finding.containment:.2f} ({finding.part})"
    if len(worst) > LINES:
        yield f"and {len(worst) - LINES:,} more; --json lists all"
