"""The commands that ask models: `medllm evaluate` on whole exams without a recipe, `medllm ask` one question."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
import typer.core

from medllm.cli.app import HubOption, JsonOption, RecipeFile, SetOption, app
from medllm.errors import RecipeError

if TYPE_CHECKING:
    from medllm.exam.prompts import Prompt
    from medllm.exam.question import Question
    from medllm.exam.record import PromptStyle
    from medllm.hub import Hub
    from medllm.recipe import Recipe
    from medllm.recipe.settings import Evaluate
    from medllm.side_by_side import Cell, Cells, Column, Round


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
    chat_template: Annotated[Optional[str], typer.Option(metavar="FILE", help="For models without one.")] = None,  # noqa: UP045
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

    changes = dict(parse_override(setting) for setting in set_)
    recipe = evaluation_recipe(
        models,
        on,
        data=data or (),
        base=base,
        key=key,
        chat_template=chat_template,
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


PACE = 0.02
"""Seconds between two looks at the replies: a terminal shows them as they come."""


@app.command()
def ask(
    recipe: RecipeFile,
    question: Annotated[str, typer.Argument(help="The id of an exam's question, or a question of your own.")],
    hub: HubOption = None,
    set_: SetOption = [],  # noqa: B006  typer copies it
    json_: JsonOption = False,
) -> None:
    """Ask every model one question, under every prompt.

    The models are the recipe's; replies are written as they come. Not for clinical use.
    """
    import asyncio

    from medllm.cli.console import log
    from medllm.evaluation import find_question
    from medllm.hub import connect
    from medllm.recipe import parse_override, read_recipe

    sound = read_recipe(recipe, dict(parse_override(setting) for setting in set_))
    with connect(hub, sound.namespace, say=log) as there:
        settings, sources = _answering(sound, there, question)
        asked = find_question(settings, sources, question)
        if asked is None:
            print(f"no question of {', '.join(settings.benchmarks)} has this id; asked word for word", file=sys.stderr)
        item, prompts = asked or (None, _own_prompts(settings, question))
        with _round(settings, sources, prompts, item) as put:
            first = next(iter(prompts.values()))
            head = first.text if settings.format == "completion" else first.conversation
            asyncio.run(_print_json(put) if json_ else _write(put, list(prompts), head))


def _answering(recipe: "Recipe", hub: "Hub", question: str) -> "tuple[Evaluate, dict[str, Path]]":
    """Return the evaluation's settings with the models that exist, and their folders; report the others."""
    from medllm.pipeline import make_plan
    from medllm.pipeline.evaluation_folder import plan_folder
    from medllm.recipe.base import STAGES

    settings = recipe.evaluate
    if settings is None:
        text = "evaluate: the recipe has no such block, which names the models to ask. Add it."
        raise RecipeError("recipe.no-evaluate", text)
    if not question.strip():
        raise RecipeError(
            "command.no-question",
            "ask: there is no question. Write an exam's question id, or a question of your own in quotes.",
        )
    if recipe.namespace is None:
        return settings, plan_folder(recipe, hub, Path("runs")).sources()
    plan = make_plan(recipe, hub)
    standing = {item.stage for item in plan.items if item.standing}
    models = {}
    for name, source in settings.models.items():
        if isinstance(source, str) and source in STAGES and source not in standing:
            print(f"{name}: cannot answer, because {source} is not made yet", file=sys.stderr)
        else:
            models[name] = source
    if not models:
        raise RecipeError(
            "stage.no-model-built", "ask: none of the recipe's models is built yet. Run `medllm run` first."
        )
    return settings.model_copy(update={"models": models}), plan.pull_standing_sources("evaluate")


def _own_prompts(settings: "Evaluate", text: str) -> "dict[PromptStyle, Prompt]":
    """Render a question of the user's own as the exams render theirs."""
    from medllm.exam.prompts import render
    from medllm.exam.question import own_question

    question = own_question(text)
    return {
        style: render(question, prompt=style, template=settings.template, system=settings.system_prompt)
        for style in settings.prompts
    }


def _round(
    settings: "Evaluate",
    sources: dict[str, Path],
    prompts: "dict[PromptStyle, Prompt]",
    question: "Question | None",
) -> "Round":
    from medllm.generation.factory import generators_for
    from medllm.generation.identity import asked_as, refuse_thinking_without_chat
    from medllm.recipe.servers import for_prompt
    from medllm.side_by_side import Round

    forms = asked_as(
        settings.models, sources, engine=settings.engine, form=settings.format, given=settings.chat_template
    )
    refuse_thinking_without_chat(forms, settings.prompts)
    longest = {style: getattr(settings.max_new_tokens, style) for style in prompts}
    values = {style: for_prompt(settings.chat_template_kwargs, style) for style in prompts}
    return Round(generators_for(settings, sources), prompts, longest, question, values)


async def _print_json(put: "Round") -> None:
    cells: Cells = {}
    async for state in put.cells(every=PACE):
        cells = state
    names = ("model", "prompt", "state", "reasoning", "text", "answer", "correct")
    rows = [{name: getattr(cell, name) for name in names} for cell in cells.values()]
    print(json.dumps(rows, ensure_ascii=False, indent=2), flush=True)
    _raise_fault(cells)


async def _write(put: "Round", styles: "list[PromptStyle]", head: str) -> None:
    """Write one cell after the other; the text of the others waits its turn."""
    print(head, flush=True)
    order: list[Column] = sorted(put.columns, key=lambda column: styles.index(column[1]))
    shown: Column | None = None
    length = thought = 0
    cells: Cells = {}
    async for cells in put.cells(every=PACE):
        while True:
            if shown is None:
                shown = next((column for column in order if cells[column].state != "waiting"), None)
                if shown is None:
                    break
                order.remove(shown)
                length = thought = 0
                print(f"\n--- {shown[0]}, {shown[1]}")
            cell = cells[shown]
            sys.stdout.write(("(thinking) " if cell.reasoning and not thought else "") + cell.reasoning[thought:])
            sys.stdout.write(("\n(reply) " if cell.text and cell.reasoning and not length else "") + cell.text[length:])
            thought = len(cell.reasoning)
            sys.stdout.flush()
            length = len(cell.text)
            if cell.state == "running":
                break
            print(_verdict(cell, put.question))
            shown = None
    _raise_fault(cells)


def _verdict(cell: "Cell", question: "Question | None") -> str:
    """What was read as the answer, and the key: unread is not wrong, and nothing is judged where there is no key."""
    from medllm.exam.question import write_answer

    if cell.fault is not None:
        return "\n[the prompt is too long for this model]" if cell.fault.kind == "too_long" else "\n[no reply]"
    if question is None or cell.correct is None:
        return ""
    key = " or ".join(map(write_answer, question.gold))
    answer = (
        "no answer could be read" if cell.answer is None else f"{cell.answer}: {'right' if cell.correct else 'wrong'}"
    )
    return f"\n[{answer}]" if cell.correct else f"\n[{answer}; the key is {key}]"


def _raise_fault(cells: "Cells") -> None:
    """Raise the error of the first cell that has one, after all cells have been shown."""
    for cell in cells.values():
        if cell.fault is not None and cell.fault.error is not None:
            raise cell.fault.error
