"""`medllm evaluate`: how good models are on exams, and what explaining costs them, without a recipe or a Hub."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
import typer.core

from medllm.cli.app import HubOption, JsonOption, SetOption, app

if TYPE_CHECKING:
    from medllm.recipe import Recipe


class ListedOption(typer.core.TyperCommand):
    """A command whose `--on` takes every word up to the next option: `--on igakuqa ./ward` is `--on` twice."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401  click's context
        """Repeat `--on` before each of its words."""
        spread: list[str] = []
        listed = False
        for word in args:
            if word.startswith("-"):
                listed = word == "--on"
                spread += [] if listed else [word]
            else:
                spread += ["--on", word] if listed else [word]
        return super().parse_args(ctx, spread)


@app.command(cls=ListedOption)
def evaluate(  # noqa: PLR0913  an option each
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...", help="ORG/NAME[@REV], a folder, an adapter, URL#NAME, openai:NAME.", show_default=False
        ),
    ],
    on: Annotated[
        list[str], typer.Option("--on", metavar="EXAM...", help="Exams: a known name, or a folder.", show_default=False)
    ],
    modes: Annotated[Optional[str], typer.Option("--modes", help="Ways of asking: plain,explain,think.")] = None,  # noqa: UP045
    shots: Annotated[Optional[int], typer.Option(help="Worked examples; else up to 3 if there are any.")] = None,  # noqa: UP045
    years: Annotated[Optional[str], typer.Option(help="Only these years, as 2018-2020,2022.")] = None,  # noqa: UP045
    limit: Annotated[Optional[int], typer.Option(help="Only so many questions of each exam: a trial.")] = None,  # noqa: UP045
    engine: Annotated[str, typer.Option(help="local, transformers, vllm, auto, or a server's URL.")] = "auto",
    data: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--data", metavar="[EXAM=]DIR", help="Where exams are; may be given again.", show_default=False),
    ] = None,
    out: Annotated[Optional[Path], typer.Option(help="Folder of the results; else one in runs/.")] = None,  # noqa: UP045
    base: Annotated[Optional[str], typer.Option(help="Base of adapters that name none here.", metavar="MODEL")] = None,  # noqa: UP045
    key: Annotated[Optional[str], typer.Option(help="Variable with the key of URL#NAME.", metavar="VARIABLE")] = None,  # noqa: UP045
    hub: HubOption = None,
    set_: SetOption = [],  # noqa: B006  typer copies it
    json_: JsonOption = False,
    open_: Annotated[bool, typer.Option("--open", help="Open the page on the results.")] = False,
) -> None:
    """Ask models exams, plainly and explained, and compare.

    Needs no recipe, no Hub and no base: the results are a folder. Typed again after an interruption, it goes on where
    it was; a model or an exam more asks only that. The 95 % intervals are of exams like these: other questions of the
    same kind in the same years, not another training.
    """
    from medllm.library.functions import fitted
    from medllm.recipe import parse_override
    from medllm.recipe.evaluation import evaluation_recipe, years_of

    changes = dict(parse_override(one) for one in set_)
    recipe = evaluation_recipe(
        models,
        on,
        data=data or (),
        base=base,
        key=key,
        changes=changes,
        prompts=modes.split(",") if modes else None,
        shots=shots,
        years=years_of(years) if years else None,
        limit=limit,
        engine=engine,
    )
    folder = evaluate_in_folder(fitted(recipe, changes), hub, Path("runs"), out, json_=json_)
    if open_:
        from medllm.cli.page import app_

        app_(str(folder), port=0, open_browser=True)


def evaluate_in_folder(
    recipe: "Recipe", hub: str | None, work: Path, out: Path | None = None, *, json_: bool = False
) -> Path:
    """Make the results of a recipe without a namespace, print them, and return their folder."""
    from medllm.cli.console import handle_interrupt, open_reporter
    from medllm.library.functions import evaluate_recipe
    from medllm.pipeline.facts import summary_json, summary_lines, warnings_of

    with open_reporter() as reporter, handle_interrupt():
        results = evaluate_recipe(recipe, hub=hub, work=work, out=out, say=reporter.say, progress=reporter.progress)
    folder, report = results.folder or work, results.stability().report
    for line in warnings_of(results.records, recipe):
        print(line, file=sys.stderr)
    if json_:
        print(json.dumps(summary_json(report, folder), ensure_ascii=False, indent=2))
    else:
        print("\n".join(summary_lines(report, folder)))
    return folder
