"""The commands for exams: score any model's predictions, and report stability under explanation."""

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from medllm.cli.app import app
from medllm.errors import DataError

if TYPE_CHECKING:
    from medllm.exam.grading import Rules
    from medllm.exam.scoring import Score

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


@app.command()
def score(
    benchmark: Annotated[str | None, typer.Argument(help="igakuqa, jmle2026, ... or a name for your own exam.")] = None,
    files: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Argument(metavar="FILE...", help="Predictions: of IgakuQA, medllm's records, lm-eval samples."),
    ] = None,
    data: DataOption = None,
    rules: Annotated[
        str, typer.Option("--rules", metavar="official|normalised", help="How answers are compared.")
    ] = "normalised",
    hub: HubOption = None,
    list_: Annotated[bool, typer.Option("--list", help="List the exams with source, licence and dates.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Score any model's predictions on an exam.

    With intervals, by year, section, category and the pass rule.

    `official` compares byte for byte as IgakuQA's own scorer does, so that published numbers come out; `normalised`
    reads the answer out of the reply and repairs numeric keys.
    """
    from medllm.exam import score_report

    if list_:
        listing = score_report.catalogue_json() if json_ else "\n".join(score_report.catalogue_lines())
        print(json.dumps(listing, ensure_ascii=False, indent=2) if json_ else listing)
        return
    if benchmark is None or not files:
        raise DataError(
            "command.no-predictions",
            "score needs an exam and files of predictions: `medllm score igakuqa FILE... --data DIR`.",
        )
    scores = _scores(benchmark, files, rules, exam_folder(benchmark, data, hub))
    for one in scores:
        for warning in score_report.warnings(one):
            print(f"medllm: {warning}", file=sys.stderr)
    if json_:
        found = [score_report.score_json(one) for one in scores]
        print(json.dumps(found[0] if len(found) == 1 else found, ensure_ascii=False, indent=2))
        return
    print("\n\n".join("\n".join(score_report.score_lines(one)) for one in scores))


def _scores(benchmark: str, files: list[Path], rules: str, folder: Path) -> list["Score"]:
    """Every system's score on the exam."""
    from medllm.exam.benchmarks import load
    from medllm.exam.predictions import read_predictions
    from medllm.exam.question import index
    from medllm.exam.scoring import score as score_systems

    if rules not in ("official", "normalised"):
        raise DataError("command.unknown-value", f"--rules {rules}: unknown rules. Give official or normalised.")
    questions = load(benchmark, folder)
    systems = read_predictions(files, index(questions), benchmark)
    chosen: Rules = "official" if rules == "official" else "normalised"
    return score_systems(questions, systems, rules=chosen)


def exam_folder(benchmark: str, data: str | None, hub: str | None = None) -> Path:
    """The local folder of an exam: as given, or pulled from the Hub at the revision that is named."""
    from medllm.exam.benchmarks import CATALOGUE
    from medllm.exam.benchmarks.loading import how_to_fetch
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
    records: Annotated[list[Path], typer.Argument(metavar="RECORDS...", help="Records, or an evaluation's folder.")],
    plot: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option("--plot", metavar="FILE.svg|png", help="Also draw it; may be given twice.", show_default=False),
    ] = None,
    language: Annotated[str, typer.Option("--language", metavar="en|ja", help="Of the figure.")] = "en",
    json_: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Report what explaining does to each model's answers.

    Scores, kept and lost answers, the reasons, with paired intervals.
    """
    from medllm.exam.record import read_records
    from medllm.exam.stability.plot import draw_stability
    from medllm.exam.stability.report import stability_report
    from medllm.exam.stability.text import report_json, report_lines

    if language not in ("en", "ja"):
        raise DataError("command.unknown-value", f"--language {language}: unknown language. Give en or ja.")
    found = stability_report(record for file in records for record in read_records(file))
    text = json.dumps(report_json(found), ensure_ascii=False, indent=2) if json_ else "\n".join(report_lines(found))
    print(text, flush=True)  # before the figures: a figure that cannot be drawn does not cost the report
    for path in plot or ():
        draw_stability(found, path, language="ja" if language == "ja" else "en")
        print(f"medllm: drew {path}", file=sys.stderr)
