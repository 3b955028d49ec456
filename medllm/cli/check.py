"""`medllm check`: checks a recipe and estimates the memory, time and price of each stage."""

import dataclasses
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medllm.cli.app import HubOption, WorkOption, app

if TYPE_CHECKING:
    from medllm.preflight.shown_tokens import ShownRow
    from medllm.recipe import Recipe
    from medllm.recipe.estimate import CostPlan, StageCost


@app.command()
def check(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.")],
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="K=V", help="Another value, as rpo.rpo_alpha=0.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="The base's config.json, when medllm does not know its shape.")
    ] = None,
    hub: HubOption = None,
    work: WorkOption = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan for a program.")] = False,
    show_tokens: Annotated[
        bool, typer.Option("--show-tokens", help="Print rows as the model reads them, learnt tokens in colour.")
    ] = False,
) -> None:
    """Check a recipe; estimate memory, time and price.

    Opens what the recipe names on this machine and reports every fault of exams, texts, models and adapters at once.
    Needs no network and no torch; with --hub it also asks that Hub what exists, reads the exams there, measures the
    disk, tries the servers, and shows what a run would do.
    Figures that the recipe does not decide are left out, never guessed; docs/cost.md
    has the formulas and names the constants that are assumed.

    --show-tokens needs torch, and shows what folders on this machine hold: of the corpus, the pairs and the questions
    asked. Without colour, what is learnt is between ⟦ and ⟧.
    """
    from medllm.recipe import local_sources, stages_of
    from medllm.recipe.estimate import plan
    from medllm.recipe.read import parse_override, read_recipe

    sound = read_recipe(recipe, dict(map(parse_override, changes or [])))
    if local_sources(sound, stages_of(sound)):
        from medllm.preflight import inspect, refuse_all
        from medllm.preflight.inspect import adapter_bases, folder_config

        sound = sound.with_adapter_bases(adapter_bases(sound, lambda use: folder_config(sound, use)))
        sources = local_sources(sound, stages_of(sound))
        refuse_all(sound, inspect(sound, stages_of(sound), sources))
    planned = plan(sound, config)
    lines = _plan_on(hub, sound, work) if hub else []
    rows = _rows(sound) if show_tokens else []
    if as_json:
        plain = [row if isinstance(row, str) else dataclasses.asdict(row) for row in rows]
        everything = {**dataclasses.asdict(planned), "plan": lines, **({"rows": plain} if show_tokens else {})}
        print(json.dumps(everything, indent=2, ensure_ascii=False))
    else:
        print("\n".join([_shown(planned, recipe), *(["", f"On {hub}:", *lines] if lines else [])]))
        _print_rows(rows)


def _rows(recipe: "Recipe") -> "list[ShownRow | str]":
    from medllm.preflight.shown_tokens import shown_rows
    from medllm.recipe import local_sources, stages_of

    return list(shown_rows(recipe, local_sources(recipe, stages_of(recipe))))


_HIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Characters that steer a terminal or turn the direction of a line."""


def _print_rows(rows: "Iterable[ShownRow | str]") -> None:
    """Print rows with what is learnt in colour, or between marks where there is none."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    coloured = console.color_system is not None and not console.no_color
    for row in rows:
        if isinstance(row, str):
            console.print(f"\n{row}", markup=False)
            continue
        text = Text()
        for written, learnt in row.parts:
            safe = _HIDDEN.sub(lambda match: f"\\u{ord(match[0]):04x}", written)
            marked = learnt and not coloured
            text.append(f"⟦{safe}⟧" if marked else safe, style="green" if learnt else "")
        console.print(f"\n--- {row.title}, {row.tokens:,} tokens", markup=False)
        console.print(text)


def _plan_on(hub: str, recipe: "Recipe", work: Path) -> list[str]:
    """Ask a Hub what exists, refuse what a run would refuse at its start, and describe what it would do.

    Room on the disk, keys and servers of this machine count where no stage names another one (`run_on`).
    """
    from medllm.cli.console import describe_plan, log
    from medllm.hub import connect
    from medllm.pipeline import make_plan
    from medllm.pipeline.preflight import check_before_work
    from medllm.pipeline.pushed import deleted_versions

    with connect(hub, recipe.namespace, say=log) as there:
        plan = make_plan(recipe, there)
        here = not any(getattr(item.settings, "run_on", None) for item in plan.missing)
        check_before_work([plan], there, work, here=here)
        return list(describe_plan(plan, deleted_versions(plan, there, work)))


def _shown(planned: "CostPlan", recipe: Path) -> str:
    from medllm.recipe.hardware import PRICES_READ

    size = f", {planned.parameters / 1e9:.2f} billion parameters" if planned.parameters else ""
    base = f" from {planned.base}" if planned.base else ""
    lines = [f"{recipe} is valid: {planned.name}{base}{size}.", ""]
    for number, step in enumerate(planned.steps, 1):
        kind = step.kind if "/" in step.repo else "folder"  # without a namespace there is no repository
        lines.append(f"{number}  {step.stage:<12} {kind:<8} {step.repo}  <- {', '.join(step.uses) or 'nothing'}")
        lines += [f"   {'':<12} {line}" for line in _facts(step)]
    if any(step.dollars for step in planned.steps):
        lines += [
            "",
            f"Prices are the Hub's of {PRICES_READ}; GPU-hours rest on an assumed share of peak (docs/cost.md).",
        ]
    if planned.hosts:
        lines += ["", f"Questions are sent to {', '.join(planned.hosts)}."]
    if planned.missing:
        lines += ["", f"`{planned.prepared_by}` writes what does not exist yet: {', '.join(planned.missing)}"]
    if planned.warnings:
        lines += ["", *(f"! {warning}" for warning in planned.warnings)]
    return "\n".join(lines)


def _facts(step: "StageCost") -> list[str]:
    from medllm.wording import format_duration

    lines = []
    if step.trainable_parameters:
        lines.append(f"trains {step.trainable_parameters / 1e6:,.1f} million parameters")
    if step.gb_a_gpu is not None:
        parts = ", ".join(f"{name} {size:g}" for name, size in step.gb.items())
        held = (
            "divided over the GPUs" if step.sharded else "whole on each GPU" if step.fits is not None else "in memory"
        )
        lines.append(f"on {step.machine}: about {step.gb_a_gpu:g} GB a GPU ({parts}), {held}")
        if step.gb_loading:
            lines.append(f"loading the base takes {step.gb_loading:g} GB on each GPU before it is divided")
    elif step.machine:
        lines.append(f"on {step.machine}")
    if step.gb_disk and step.stage == "merge":
        lines.append(f"base and merged model take about {step.gb_disk:g} GB of disk")
    if step.minutes_an_update and step.minutes_between_checkpoints:
        lines.append(
            f"an update takes about {format_duration(60 * step.minutes_an_update)}; a checkpoint at least every "
            f"{format_duration(60 * step.minutes_between_checkpoints)}"
        )
    if step.tokens:
        price = f", ${step.dollars:,.2f}" if step.dollars else ""
        hours = f": {step.gpu_hours:,.1f} GPU-hours{price}" if step.gpu_hours else ""
        lines.append(f"at most {step.tokens:,} tokens{hours}")
    return [*lines, *step.notes]
