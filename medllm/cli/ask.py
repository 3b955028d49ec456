"""`medllm ask`: one question to every model, plain and explained."""

import json
import sys
import warnings
from typing import TYPE_CHECKING, Annotated

import typer

from medllm.cli.app import app
from medllm.cli.options import HubOption, JsonOption, RecipeFile, SetOption

if TYPE_CHECKING:
    from medllm.exam.question import Question
    from medllm.pipeline.asking import Asked, Cell


@app.command()
def ask(
    recipe: RecipeFile,
    question: Annotated[str, typer.Argument(help="The id of an exam's question, or a question of your own.")],
    hub: HubOption = None,
    set_: SetOption = [],  # noqa: B006  typer copies it
    json_: JsonOption = False,
) -> None:
    """Ask every model of the recipe, plainly and explained; replies are written as they come. Not for clinical use."""
    from medllm.cli.console import log
    from medllm.hub import connect
    from medllm.pipeline import asking, make_plan
    from medllm.recipe import parse_override, read_recipe

    sound = read_recipe(recipe, dict(parse_override(one) for one in set_))
    with connect(hub, sound.namespace, say=log) as there, warnings.catch_warnings():
        # Libraries' notes to their own developers do not concern the user.
        warnings.simplefilter("ignore", FutureWarning)
        asked = asking.ask(make_plan(sound, there), question)
        if asked.question is None:
            exams = ", ".join(asked.settings.benchmarks)
            print(f"no question of {exams} has this id; asked word for word", file=sys.stderr)
        for name, source in asked.missing.items():
            print(f"{name}: cannot answer, because {source} is not made yet", file=sys.stderr)
        if json_:
            cells = {(cell.model, cell.prompt): cell for cell, _ in asking.replies(asked)}
            print(json.dumps([vars(cell) for cell in cells.values()], ensure_ascii=False, indent=2))
        else:
            _write(asked)


def _write(asked: "Asked") -> None:
    """Write one cell after the other; the text of the others waits its turn."""
    from medllm.pipeline.asking import replies

    print(asked.prompts["plain"].text if "plain" in asked.prompts else asked.text, flush=True)
    order: list[tuple[str, str]] = [(model, style) for style in asked.prompts for model in asked.settings.models]
    waiting: dict[tuple[str, str], list[tuple[str, bool]]] = {}
    shown: tuple[str, str] | None = None
    cells: dict[tuple[str, str], Cell] = {}
    for cell, piece in replies(asked):
        key = (cell.model, cell.prompt)
        cells[key] = cell
        waiting.setdefault(key, []).append((piece, cell.done))
        while shown or waiting:
            if shown is None:
                shown = next(key for key in order if key in waiting)
                print(f"\n--- {shown[0]}, {shown[1]}")
            said = waiting.pop(shown, [])
            sys.stdout.write("".join(text for text, _ in said))
            sys.stdout.flush()
            if not (said and said[-1][1]):
                break
            print(_verdict(cells[shown], asked.question))
            shown = None


def _verdict(cell: "Cell", question: "Question | None") -> str:
    """What was read as the answer, and the key: unread is not wrong, and nothing is judged where there is no key."""
    from medllm.exam.question import write_answer

    if question is None or cell.correct is None:
        return ""
    key = " or ".join(map(write_answer, question.gold))
    said = (
        "no answer could be read" if cell.answer is None else f"{cell.answer}: {'right' if cell.correct else 'wrong'}"
    )
    return f"\n[{said}]" if cell.correct else f"\n[{said}; the key is {key}]"
