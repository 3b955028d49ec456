"""The command `ask`: one question to every model, plainly and explained."""

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from medllm.cli.edge import app
from medllm.cli.options import HubOption, JsonOption, RecipeFile, SetOption

if TYPE_CHECKING:
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
    from medllm.hub import connect
    from medllm.pipeline import asking, make_plan
    from medllm.recipe import parse_override, read_recipe

    sound = read_recipe(recipe, dict(parse_override(one) for one in set_))
    with connect(hub, sound.namespace) as there:
        asked = asking.ask(make_plan(sound, there), question)
        for name, source in asked.missing.items():
            print(f"{name}: cannot answer, because {source} is not made yet", file=sys.stderr)
        if json_:
            cells = {(cell.model, cell.prompt): cell for cell, _ in asking.replies(asked)}
            print(json.dumps([vars(cell) for cell in cells.values()], ensure_ascii=False, indent=2))
        else:
            _write(asked)


def _write(asked: "Asked") -> None:
    """One cell after the other; what the others say meanwhile waits its turn."""
    from medllm.pipeline.asking import replies

    print(asked.prompts["plain"].text if "plain" in asked.prompts else asked.text)
    waiting: dict[tuple[str, str], list[tuple[str, bool]]] = {}
    shown: tuple[str, str] | None = None
    cells: dict[tuple[str, str], Cell] = {}
    for cell, piece in replies(asked):
        key = (cell.model, cell.prompt)
        cells[key] = cell
        waiting.setdefault(key, []).append((piece, cell.done))
        while shown or waiting:
            if shown is None:
                shown = next(iter(waiting))
                print(f"\n--- {shown[0]}, {shown[1]}")
            said = waiting.pop(shown, [])
            sys.stdout.write("".join(text for text, _ in said))
            sys.stdout.flush()
            if not (said and said[-1][1]):
                break
            print(_verdict(cells[shown]))
            shown = None


def _verdict(cell: "Cell") -> str:
    if cell.correct is None:
        return ""
    return f"\n[{cell.answer or 'no answer could be read'}: {'right' if cell.correct else 'wrong'}]"
