"""The commands for exams: score predictions, report stability under explanation, and size a study."""

import json
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from medllm.cli.app import app
from medllm.errors import DataError

if TYPE_CHECKING:
    from medllm.exam.question import Question
    from medllm.exam.record import Record
    from medllm.exam.scoring import Score
    from medllm.exam.stability.report import StabilityReport

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
DataOption = Annotated[
    Optional[str],  # noqa: UP045  typer shows it so
    typer.Option(
        "--data",
        metavar="DIR|ORG/NAME@REVISION",
        help="Where the exam is: a folder, or a Hub dataset.",
        show_default=False,
    ),
]

HubOption = Annotated[
    Optional[str],  # noqa: UP045  typer shows it so
    typer.Option("--hub", metavar="URL|DIR", help="The Hub that --data names a dataset of.", show_default=False),
]


FilterOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--filter", metavar="NAME", help="Filter of lm-eval to score.", show_default=False),
]
ColumnsOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--columns", metavar="id=A,answer=B", help="Columns with other names.", show_default=False),
]
RulesOption = Annotated[str, typer.Option("--rules", metavar="official|normalised", help="How answers are compared.")]


@app.command()
def score(  # noqa: PLR0913
    benchmark: Annotated[str | None, typer.Argument(help="igakuqa, jmle2026, ... or a name for your own exam.")] = None,
    files: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(metavar="[NAME[:PROMPT]=]FILE...", help="Results of any tool; docs/evaluation.md lists them."),
    ] = None,
    data: DataOption = None,
    against: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--against", metavar="MODEL[:PROMPT]", help="Whom to compare with.", show_default="the first"),
    ] = None,
    by: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--by", metavar="year|section|category|pass|all", help="Details; may repeat.", show_default=False),
    ] = None,
    scope: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--scope", metavar="asked|year", help="Which questions count.", show_default="year if whole"),
    ] = None,
    rules: RulesOption = "normalised",
    filter_: FilterOption = None,
    columns: ColumnsOption = None,
    records: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--records", metavar="OUT", help="Write records: .parquet, .jsonl, or a folder.", show_default=False
        ),
    ] = None,
    hub: HubOption = None,
    list_: Annotated[bool, typer.Option("--list", help="List the exams with source, licence and dates.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Score any model's results on an exam.

    One table: each score with its 95 % interval, the paired difference to the first model, p and Holm's correction. The
    intervals are of exams like these: other questions of the same kind in the same years, not another training.

    `official` compares byte for byte as IgakuQA's own scorer does; `normalised` reads the answer out of the reply.
    """
    from medllm.exam import score_report
    from medllm.exam.scoring import graded_records
    from medllm.exam.scoring import score as score_systems
    from medllm.library.functions import read_systems

    if list_:
        _print_catalogue(json_)
        return
    if benchmark is None or not files:
        raise DataError(
            "command.no-predictions",
            "score needs an exam and files of predictions: `medllm score igakuqa FILE... --data DIR`.",
        )
    parts = [_one_of(part, score_report.PARTS, "--by") for part in by or ()]
    chosen = _one_of(rules, ("official", "normalised"), "--rules")
    counted = None if scope is None else _one_of(scope, ("asked", "year"), "--scope")
    questions, systems = read_systems(benchmark, files, exam_folder(benchmark, data, hub), filter_, _columns(columns))
    scores = score_systems(questions, systems, rules=chosen, scope=counted, against=against)
    if records is not None:
        _write_records(graded_records(questions, systems, rules=chosen), questions, records)
    _print_scores(scores, parts, json_)


def _print_catalogue(json_: bool) -> None:
    from medllm.exam import score_report

    listing = score_report.catalogue_json() if json_ else "\n".join(score_report.catalogue_lines())
    print(json.dumps(listing, ensure_ascii=False, indent=2) if json_ else listing)


def _write_records(graded: "list[Record]", questions: "list[Question]", out: Path) -> None:
    """Write records to a file, or to a folder together with their questions."""
    from medllm.exam.question import write_questions
    from medllm.exam.record import write_records

    name = f"{questions[0].benchmark}.parquet"
    file = out if out.suffix in (".parquet", ".jsonl") else out / "records" / name
    write_records(graded, file)
    if file != out:
        write_questions(questions, out / "questions" / name)
    shown = "" if file == out else f", and medllm app {out} shows them beside their questions"
    print(f"medllm: wrote {out}; next: medllm stability {file}{shown}", file=sys.stderr)


def _print_scores(scores: list["Score"], parts: list[str], json_: bool) -> None:
    from medllm.exam import score_report

    if json_:
        rows = [score_report.score_json(row) for row in scores]
        print(json.dumps(rows[0] if len(rows) == 1 else rows, ensure_ascii=False, indent=2))
        return
    details = ["\n".join(score_report.score_lines(row, parts)) for row in scores] if parts else []
    print("\n\n".join(["\n".join(score_report.table_lines(scores)), *details]))


def _one_of(value: str, allowed: tuple[str, ...], option: str) -> Any:  # noqa: ANN401  (one of the literals allowed)
    if value not in allowed:
        names = f"{', '.join(allowed[:-1])} or {allowed[-1]}"
        raise DataError("command.unknown-value", f"{option} {value}: is unknown. Give {names}.")
    return value


def _columns(written: str | None) -> dict[str, str]:
    """Read `--columns id=A,answer=B`."""
    named = dict(pair.split("=", 1) for pair in written.split(",") if "=" in pair) if written else {}
    if (written and set(named) - {"id", "answer"}) or (written and not named):
        raise DataError("command.unknown-value", f"--columns {written}: is not understood. Write id=A,answer=B.")
    return named


def exam_folder(benchmark: str, data: str | None, hub: str | None = None) -> Path:
    """The local folder of an exam: as given, or pulled from the Hub at the revision that is named."""
    from medllm.exam.benchmarks import CATALOGUE
    from medllm.exam.benchmarks.catalogue import how_to_fetch
    from medllm.hub import connect

    if data is None:
        known = f" {how_to_fetch(benchmark, Path('DIR'))}" if benchmark in CATALOGUE else ""
        text = f"--data is missing. Give the folder of {benchmark}, or a dataset of the Hub as ORG/NAME@COMMIT.{known}"
        raise DataError("command.no-data", text)
    if Path(data).exists() or not _HUB_NAME.fullmatch(data):
        return Path(data)
    repo_id, _, revision = data.partition("@")
    if not revision:
        raise DataError(
            "command.no-revision",
            f"--data {data}: is not a folder, and a dataset of the Hub needs a revision. Write {repo_id}@COMMIT.",
        )
    with connect(hub) as there:
        return there.pull(there.resolve(repo_id, "dataset", revision))


@app.command()
def stability(
    records: Annotated[
        list[str], typer.Argument(metavar="RECORDS...", help="Records, an evaluation's folder, or results with --exam.")
    ],
    exam: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--exam", metavar="NAME", help="Exam of any tool's results.", show_default=False),
    ] = None,
    data: DataOption = None,
    plot: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option("--plot", metavar="FILE.svg|png", help="Also draw it; may be given twice.", show_default=False),
    ] = None,
    margin: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option("--margin", help="Loss in points that would not matter.", show_default=False),
    ] = None,
    language: Annotated[str, typer.Option("--language", metavar="en|ja", help="Of the figure.")] = "en",
    json_: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Report what explaining does to each model's answers.

    Scores, kept and lost answers, the reasons, with paired intervals. The intervals are of exams like these: other
    questions of the same kind in the same years, not another training. With `--exam`, the files are results of any
    tool: `NAME:plain=FILE NAME:explain=FILE`.
    """
    from medllm.exam.record import read_records
    from medllm.exam.score_report import scope_note
    from medllm.exam.scoring import graded_records
    from medllm.exam.scoring import score as score_systems
    from medllm.exam.stability.plot import draw_stability
    from medllm.exam.stability.report import stability_report
    from medllm.exam.stability.text import report_json, report_lines
    from medllm.library.functions import read_systems

    if language not in ("en", "ja"):
        raise DataError("command.unknown-value", f"--language {language}: unknown language. Give en or ja.")
    share = _margin_share(margin)
    if exam is None:
        report = stability_report(record for file in records for record in read_records(Path(file)))
    else:
        questions, systems = read_systems(exam, records, exam_folder(exam, data))
        for score_system in score_systems(questions, systems):
            if (note := scope_note(score_system)) is not None:
                print(f"medllm: {note}", file=sys.stderr)
        report = stability_report(graded_records(questions, systems, rules="normalised"))
    shown = report_json(report, share) if json_ else "\n".join(report_lines(report, share))
    text = json.dumps(shown, ensure_ascii=False, indent=2) if json_ else shown
    print(text, flush=True)  # before the figures: a figure that cannot be drawn does not cost the report
    for path in plot or ():
        draw_stability(report, path, language="ja" if language == "ja" else "en")
        print(f"medllm: drew {path}", file=sys.stderr)


@app.command()
def compare(  # noqa: PLR0913
    systems: Annotated[
        list[str],
        typer.Argument(metavar="[NAME=]A [NAME=]B...", help="Records or evaluations; with --on, models to ask."),
    ],
    on: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--on", metavar="EXAM", help="Ask the models this exam; may repeat.", show_default=False),
    ] = None,
    exam: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--exam", metavar="NAME", help="Exam of any tool's results.", show_default=False),
    ] = None,
    data: DataOption = None,
    modes: Annotated[Optional[str], typer.Option("--modes", help="With --on: plain,explain,think.")] = None,  # noqa: UP045
    limit: Annotated[Optional[int], typer.Option(help="With --on: only so many questions, a trial.")] = None,  # noqa: UP045
    margin: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option("--margin", help="Loss in points that would not matter.", show_default=False),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail unless each loss is shown below --margin.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Compare models on the same questions.

    For each exam and prompt: the paired difference with its 95 % interval, answers lost and gained, those that guesses
    lose and gain by chance, McNemar's p and Holm's correction. `--strict` is for scripts that must not go on when a
    model has lost what another one knew.
    """
    from medllm.exam.stability.paired import margin_claims
    from medllm.exam.stability.text import comparison_lines, report_json

    share = _margin_share(margin)
    if strict and share is None:
        raise DataError("command.no-margin", "--strict: needs --margin. Give the loss in points that would not matter.")
    report = _compared(systems, on, exam, data, modes, limit)
    if json_:
        print(json.dumps(report_json(report, share)["comparisons"], ensure_ascii=False, indent=2))
    else:
        print("\n".join(comparison_lines(report, share)).rstrip())
    claims = [(row, margin_claims(row.difference, share)) for row in report.comparisons] if strict else []
    if open_ := [row for row, claim in claims if claim is None or not claim.not_worse]:
        names = "; ".join(f"{row.second} minus {row.first}, {row.benchmark}, {row.prompt}" for row in open_)
        raise DataError(
            "exam.loss-not-excluded",
            f"--strict: the intervals do not exclude a loss of {margin:g} points: {names}. Ask more questions "
            "(`medllm power`), or look at the lost answers with `medllm app`.",
        )


def _compared(
    systems: list[str],
    on: list[str] | None,
    exam: str | None,
    data: str | None,
    modes: str | None,
    limit: int | None,
) -> "StabilityReport":
    """Return the report of the systems' records: asked now, read, or graded from any tool's results."""
    from medllm.library import functions
    from medllm.library.results import Results

    if on:
        asked = functions.evaluate(systems, on, data=data, modes=modes.split(",") if modes else None, limit=limit)
        report = asked.compare().report
    elif exam is not None:
        report = functions.load_results(systems, exam, data=exam_folder(exam, data)).compare().report
    else:
        report = Results([record for system in systems for record in functions.named_records(system)]).compare().report
    if not report.comparisons:
        raise DataError(
            "exam.nothing-to-compare",
            f"{', '.join(systems)}: no two models answer the same questions under one prompt. Give records of two "
            "models, or of one model twice as NEW=FILE.",
        )
    return report


def _margin_share(margin: float | None) -> float | None:
    """Return a margin in points of 100 as a share."""
    if margin is not None and not 0 < margin < 100:
        raise DataError(
            "command.unknown-value", f"--margin {margin:g}: is out of range. Give points above 0, below 100."
        )
    return None if margin is None else margin / 100


@app.command()
def power(
    margin: Annotated[float, typer.Option(help="Margin of the claim, in points of 100 questions.")] = 2.0,
    churn: Annotated[float, typer.Option(help="Share of questions whose verdict changes, either way.")] = 0.12,
    power_: Annotated[float, typer.Option("--power", help="Probability that the claim is proved if it is true.")] = 0.8,
    alpha: Annotated[float, typer.Option(help="Error level of each one-sided test.")] = 0.05,
    design_effect: Annotated[float, typer.Option(help="Above 1 where questions share vignettes.")] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show how many questions a claim about a paired change needs.

    `medllm stability` reports the churn (kept, lost and gained answers) of a model that was asked before.
    """
    from medllm.exam.power import CLAIMS, sample_size

    sizes = [
        sample_size(claim, margin=margin / 100, churn=churn, power=power_, alpha=alpha, design_effect=design_effect)
        for claim in CLAIMS
        if claim != "different" or margin / 100 <= churn
    ]
    if as_json:
        print(json.dumps([asdict(size) for size in sizes], indent=2))
        return
    worded = {
        "equivalent": f"explaining changes the score by less than {margin:g} points",
        "not-worse": f"explaining costs less than {margin:g} points",
        "different": f"explaining changes the score, if it does so by {margin:g} points",
    }
    print(f"With {100 * churn:g} % of the answers changing, a power of {100 * power_:g} % and an alpha of {alpha:g}:")
    for size in sizes:
        print(f"  {size.questions:>7,} questions to claim that {worded[size.claim]}")
