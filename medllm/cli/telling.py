"""How a run is told: a live line on a terminal, plain dated lines in a log."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import typer
from rich.console import Console
from rich.text import Text

from medllm.errors import MedllmError
from medllm.pipeline import Plan

Say = Callable[[str], None]


@dataclass(frozen=True)
class Teller:
    """Tells what happened, which stays, and how far the work has come, of which only the latest word matters."""

    say: Say
    progress: Say
    confirm: Callable[[str], bool]
    """Asks a person; False where there is none to ask."""


PROGRESS_EVERY = 60.0
"""Seconds between two lines of progress in a log."""


@contextmanager
def teller() -> Iterator[Teller]:
    """Tell on stderr; on a terminal the latest progress stays in the last line, in a log it is told now and then."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        yield Teller(log, _now_and_then(log), lambda question: False)
        return
    start = time.monotonic()
    with console.status("starting") as status:

        def say(text: str) -> None:
            minutes, seconds = divmod(int(time.monotonic() - start), 60)
            console.print(f"{minutes:3d}:{seconds:02d}  {text}", markup=False)
            status.update(Text(text))

        def confirm(question: str) -> bool:
            status.stop()  # or it would write over the answer
            try:
                return sys.stdin.isatty() and typer.confirm(question, err=True)
            finally:
                status.start()

        yield Teller(say, lambda text: status.update(Text(text)), confirm)


@contextmanager
def stopped_kindly() -> Iterator[None]:
    """Ctrl-C ends in one line that says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise MedllmError(
            "stopped. What is made stays; run the same command again, and it goes on from here."
        ) from None


def log(text: str) -> None:
    """One dated line on stderr."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def _now_and_then(say: Say) -> Say:
    last = [0.0]

    def tell(text: str) -> None:
        if time.monotonic() - last[0] >= PROGRESS_EVERY:
            last[0] = time.monotonic()
            say(text)

    return tell


def asked(tell: Teller, yes: bool) -> Callable[[Plan], None]:
    """Show the plan, and before anything that stands is remade, ask."""
    ask = asked_all(tell, yes)
    return lambda plan: ask({"": plan})


def asked_all(tell: Teller, yes: bool) -> Callable[[Mapping[str, Plan]], None]:
    """Show several plans, each under its name, and ask once for all of them."""

    def ask(plans: Mapping[str, Plan]) -> None:
        for name, plan in plans.items():
            for line in plan_lines(plan):
                tell.say(f"{name}: {line}" if name else line)
        remade = list(dict.fromkeys(item.repo_id for plan in plans.values() for item in plan.missing if item.remade))
        if remade and not yes and not tell.confirm(f"Remake {', '.join(remade)}?"):
            raise MedllmError(f"{', '.join(remade)} would be remade, so nothing was done. Say --yes to remake them.")

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
