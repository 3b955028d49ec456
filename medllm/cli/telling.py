"""How a run is told: a live line on a terminal, plain dated lines in a log."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import typer
from rich.console import Console

from medllm.errors import MedllmError
from medllm.pipeline import Plan

Say = Callable[[str], None]


@contextmanager
def teller() -> Iterator[Say]:
    """Tell on stderr; on a terminal the latest word also stays in sight while the work goes on."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        yield lambda text: print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
        return
    start = time.monotonic()

    def say(text: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - start), 60)
        console.print(f"[dim]{minutes:3d}:{seconds:02d}[/dim] ", end="")
        console.print(text, markup=False)

    yield say


def asked(say: Say, yes: bool) -> Callable[[Plan], None]:
    """Show the plan, and before anything that stands is remade, ask."""
    ask = asked_all(say, yes)
    return lambda plan: ask({"": plan})


def asked_all(say: Say, yes: bool) -> Callable[[Mapping[str, Plan]], None]:
    """Show several plans, each under its name, and ask once for all of them."""

    def ask(plans: Mapping[str, Plan]) -> None:
        for name, plan in plans.items():
            for line in plan_lines(plan):
                say(f"{name}: {line}" if name else line)
        remade = list(dict.fromkeys(item.repo_id for plan in plans.values() for item in plan.missing if item.remade))
        if not remade or yes:
            return
        if not sys.stdin.isatty():
            raise MedllmError(f"{', '.join(remade)} would be remade. Say so with --yes.")
        if not typer.confirm("Remake what the plan says?", err=True):
            raise MedllmError("nothing was changed.")

    return ask


def plan_lines(plan: Plan) -> Iterator[str]:
    """One line for each stage: it stands, or it is made or remade and why."""
    if not plan.missing:
        yield "everything stands; nothing to make"
    for item in plan.items:
        if item.standing:
            yield f"{item.stage}: stands as {item.repo_id}@{item.standing.artifact.revision[:7]}"
        elif item.remade:
            yield f"{item.stage}: remade, because {item.why}"
        else:
            yield f"{item.stage}: to make"
