"""`medllm clean`: what runs left on this disk, and its removal."""

import json
from pathlib import Path
from typing import Annotated

import typer

from medllm.cli.app import app
from medllm.cli.options import HubOption, JsonOption, RecipeFile, SetOption, WorkOption


@app.command()
def clean(
    recipe: RecipeFile,
    hub: HubOption = None,
    set_: SetOption = [],  # noqa: B006  typer copies it
    work: WorkOption = Path("runs"),
    unfinished: Annotated[bool, typer.Option("--unfinished", help="Unfinished work can go, too.")] = False,
    answers: Annotated[bool, typer.Option("--answers", help="Replies kept for later runs can go, too.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove what can go.")] = False,
    json_: JsonOption = False,
) -> None:
    """List what runs left on this disk, and free it with --yes.

    An output can go when the Hub has it. The blobs of an embedded Hub are freed by `medllm hub gc`.
    """
    from medllm.cli.console import log
    from medllm.hub import connect
    from medllm.pipeline import make_plan
    from medllm.pipeline.clean import list_places, remove_places
    from medllm.pipeline.progress import format_bytes
    from medllm.recipe import parse_override, read_recipe

    sound = read_recipe(recipe, dict(parse_override(one) for one in set_))
    with connect(hub, sound.namespace, say=log) as there:
        places = list_places(make_plan(sound, there), there, work, unfinished=unfinished, answers=answers)
        removed = [str(place.path) for place in remove_places(places)] if yes else []
    if json_:
        rows = [
            {"path": str(one.path), "bytes": one.size, "state": one.state, "removable": one.removable} for one in places
        ]
        print(json.dumps({"places": rows, "removed": removed}, ensure_ascii=False, indent=2))
        return
    for one in places:
        word = "removed" if str(one.path) in removed else "can go" if one.removable else "stays"
        print(f"{format_bytes(one.size):>10}  {word:<8}{one.path}: {one.reason}")
    free = format_bytes(sum(one.size for one in places if one.removable))
    print(f"{free} freed" if yes else f"{free} can be freed: run the same command with --yes")
