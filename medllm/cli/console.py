"""What a run prints: a live line on a terminal, dated lines in a log, and the plan of the quickstart."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from medllm.errors import MedllmError

if TYPE_CHECKING:
    from medllm.hub import Artifact, Hub
    from medllm.pipeline import BuildContext, BuildPlan, StagePlan
    from medllm.recipe.base import Stage

Say = Callable[[str], None]

PROGRESS_EVERY = 60.0
"""Seconds between two lines of progress in a log."""


@dataclass(frozen=True)
class Reporter:
    """Prints events, which stay, and progress, of which only the latest line matters; asks the user."""

    say: Say
    progress: Say
    confirm: Callable[[str], bool]
    """Asks the user yes or no; False where there is no terminal."""


@contextmanager
def open_reporter(console: Console | None = None, every: float | None = None) -> Iterator[Reporter]:
    """Report on stderr: a terminal keeps the latest progress in its last line, a log gets a line of it each minute.

    With `console` report there, each line with the minutes elapsed, and progress in a log after `every` seconds.
    """
    dated = console is None
    console = console or Console(stderr=True, highlight=False, soft_wrap=True)
    start = time.monotonic()

    def stamped(text: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - start), 60)
        console.print(f"{minutes:3d}:{seconds:02d}  {text}", markup=False)

    if not console.is_terminal:
        say = log if dated else stamped
        yield Reporter(say, _rate_limited(say, every), lambda question: False)
        return
    line = Spinner("dots", Text("starting"))
    # What else is printed goes above the live line; on another console than stderr it stays where it is sent.
    with Live(line, console=console, transient=True, redirect_stdout=dated, redirect_stderr=dated) as live:

        def show(text: str) -> None:
            line.update(text=Text(text))

        def say_and_show(text: str) -> None:
            stamped(text)
            show(text)

        def confirm(question: str) -> bool:
            live.stop()  # or it would write over the answer
            try:
                return sys.stdin.isatty() and typer.confirm(question, err=True)
            finally:
                live.start()

        yield Reporter(say_and_show, show, confirm)


@contextmanager
def handle_interrupt() -> Iterator[None]:
    """Turn Ctrl-C into one line that explains how to resume."""
    try:
        yield
    except KeyboardInterrupt:
        raise MedllmError(
            "command.interrupted", "Interrupted. Finished stages are kept; rerun the same command to resume."
        ) from None


def log(text: str) -> None:
    """Print one line on stderr with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def _rate_limited(say: Say, every: float | None) -> Say:
    last = [0.0]

    def say_now_and_then(text: str) -> None:
        if time.monotonic() - last[0] >= (PROGRESS_EVERY if every is None else every):
            last[0] = time.monotonic()
            say(text)

    return say_now_and_then


def confirm_plan(
    reporter: Reporter, hub: "Hub", work: Path, *, yes: bool, restore: bool
) -> "Callable[[BuildPlan], None]":
    """Return a function that prints a plan and asks before it rebuilds what exists or restores what was deleted."""
    confirm = confirm_plans(reporter, hub, work, yes=yes, restore=restore)
    return lambda plan: confirm({"": plan})


def confirm_plans(
    reporter: Reporter, hub: "Hub", work: Path, *, yes: bool, restore: bool
) -> "Callable[[Mapping[str, BuildPlan]], None]":
    """Return a function that prints several named plans and asks once for all of them.

    `yes` and `restore` are the answers that the command line gives already.
    """
    from medllm.pipeline.pushed import deleted_versions

    def confirm(plans: "Mapping[str, BuildPlan]") -> None:
        from medllm.pipeline.results import replaced_outputs

        gone: dict[str, None] = {}
        for name, plan in plans.items():
            deleted = deleted_versions(plan, hub, work)
            gone |= dict.fromkeys(deleted.values())
            for line in describe_plan(plan, deleted):
                reporter.say(f"{name}: {line}" if name else line)
        listed = ", ".join(gone)
        if gone and not restore and not reporter.confirm(f"{listed}: deleted on the Hub. Bring back?"):
            raise MedllmError(
                "command.deleted-on-hub",
                f"{listed}: somebody deleted this on the Hub after it was pushed, and this run would bring it back. "
                "Nothing was done; pass --restore to bring it back, or name only other stages.",
            )
        rebuilt = list(dict.fromkeys(item.repo_id for plan in plans.values() for item in replaced_outputs(plan)))
        if rebuilt and not yes and not reporter.confirm(f"Rebuild {', '.join(rebuilt)}?"):
            verb = "exists" if len(rebuilt) == 1 else "exist"
            raise MedllmError(
                "command.would-rebuild",
                f"{', '.join(rebuilt)} already {verb} and would be rebuilt. Nothing was done; pass --yes to rebuild.",
            )

    return confirm


def describe_plan(plan: "BuildPlan", deleted: "Mapping[Stage, str]") -> Iterator[str]:
    """Yield one line a stage: it exists, or it is built, extended or rebuilt and why."""
    if not plan.missing:
        yield UP_TO_DATE
    for item in plan.items:
        if item.standing:
            yield f"{item.stage}: exists as {item.repo_id}@{item.standing.artifact.revision[:7]}"
        else:
            gone = deleted.get(item.stage)
            yield f"{item.stage}: {state_of(item, gone) if item.remade or gone else 'will be built'}"


def state_of(item: "StagePlan", deleted: str | None) -> str:
    """Return in words what becomes of a stage that does not exist as the recipe asks for it.

    `deleted` names the version that was deleted on the Hub.
    """
    from medllm.pipeline.results import extends

    if deleted:
        return f"{deleted} was deleted on the Hub; `medllm run --restore` brings it back"
    if not item.remade:
        return item.why
    if item.only_if:
        return f"will be rebuilt only if the content of {' or '.join(item.only_if)} changes"
    return f"will be {'extended' if extends(item) else 'rebuilt'}, because {item.why}"


UP_TO_DATE = "Everything is up to date."

STAGE_PURPOSE = {
    "corpus": "texts are dated, licensed, deduplicated and checked for leakage of the held-out exams",
    "cpt": "the base is trained on the corpus, which describes the new diseases",
    "preferences": "the trained model answers past exams; its right and wrong explanations rank below verified ones",
    "rpo": "the model learns to prefer the better explanation without losing the right answer",
    "rounds": "the same once more on that model; it is kept where it answers more questions of a mock exam rightly",
    "merge": "base and adapters become one model, with a proof that it answers equally",
    "evaluate": "1,000 questions of later years, asked plainly and asked to explain first",
    "space": "the page that lays the answers side by side",
}
"""What each stage of the quickstart does."""
EXPECTED_SECONDS = {
    **{"corpus": 4, "cpt": 79, "preferences": 18, "rpo": 113, "rounds": 107, "merge": 8, "evaluate": 27, "space": 1},
}
"""Seconds of each stage on two idle cores; the time left is scaled by how long the finished stages took."""
QUICKSTART_PROGRESS_EVERY = 30.0
"""Seconds between two lines of progress of the quickstart in a log."""


@contextmanager
def redirect_library_output(log: Path) -> Iterator[Console]:
    """Send what libraries write on stdout and stderr to a file; yield a console on the real stderr."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.stdout.flush()
    sys.stderr.flush()
    out, err = os.dup(1), os.dup(2)
    with log.open("ab") as file, os.fdopen(os.dup(err), "w", encoding="utf-8") as terminal:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield Console(file=terminal, highlight=False, soft_wrap=True)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(out, 1)
            os.dup2(err, 2)
            os.close(out)
            os.close(err)


class QuickstartDisplay:
    """Reports what the quickstart does, its progress and an estimate of the time left."""

    def __init__(self, reporter: Reporter) -> None:
        self.say = reporter.say
        self._show = reporter.progress
        self._began = time.monotonic()
        self._latest = ""
        self._left: list[str] = []
        self._spent: dict[str, float] = {}

    def note(self, text: str) -> None:
        """Write the pipeline's messages to the log only."""
        print(text, file=sys.stderr, flush=True)

    def progress(self, text: str) -> None:
        """Take the pipeline's progress of the stage at work; it is shown with the time of the whole quickstart."""
        self._latest = text

    def plan(self, plan: "BuildPlan") -> None:
        """Print what exists, what will be built, and about how long that takes."""
        from medllm.wording import format_duration

        self._left = [item.stage for item in plan.missing]
        for item in plan.items:
            state = "exists" if item.standing else "to build"
            self.say(f"  {item.stage:<12}{state:<10}{item.repo_id}")
        if self._left:
            seconds = sum(EXPECTED_SECONDS[stage] for stage in self._left)
            self.say(f"about {format_duration(seconds)} on two idle cores, or less (an estimate)")
        else:
            self.say(UP_TO_DATE)

    def launch(
        self, plan: "BuildPlan", item: "StagePlan", made: dict["Stage", "Artifact"], bench: "BuildContext"
    ) -> None:
        """Build a stage in this process; print its purpose, its progress and one figure of its result."""
        from medllm.launch.local import launch
        from medllm.pipeline.facts import facts_of
        from medllm.pipeline.progress import POLL_SECONDS
        from medllm.wording import format_duration
        from medllm.work_progress import poll_in_background

        self.say(f"{item.stage}: {STAGE_PURPOSE[item.stage]}")
        self._latest = item.stage
        start = time.monotonic()

        def show() -> None:
            elapsed = time.monotonic() - start
            left = format_duration(self._seconds_left(item.stage, elapsed))
            self._show(f"{self._latest}, {format_duration(elapsed)} elapsed, about {left} left in total")

        with poll_in_background(show, POLL_SECONDS, f"display of {item.stage}"):
            launch(plan, item, made, bench)
        self._spent[item.stage] = time.monotonic() - start
        self._left.remove(item.stage)
        artifact = bench.hub.find(item.repo_id, item.kind, item.digest)
        facts = facts_of(bench.hub, artifact.artifact) if artifact else {}
        self.say(f"{item.stage}: done in {format_duration(self._spent[item.stage])}{_headline(item.stage, facts)}")

    def finish(self) -> None:
        """Print the total time."""
        from medllm.wording import format_duration

        self.say(f"finished in {format_duration(time.monotonic() - self._began)}")

    def _seconds_left(self, stage: str, elapsed: float) -> float:
        """Estimate the seconds left from how long this machine took for the finished stages."""
        expected = sum(EXPECTED_SECONDS[spent] for spent in self._spent)
        pace = sum(self._spent.values()) / expected if expected > 100 else 1.0
        later = sum(EXPECTED_SECONDS[line] for line in self._left if line != stage)
        return max(EXPECTED_SECONDS[stage] * pace - elapsed, 1.0) + later * pace


def _headline(stage: str, facts: Mapping[str, Any]) -> str:
    """Return one figure of the result, from the facts of the stage."""
    if stage == "corpus":
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(facts["reasons"].items()))
        return f"; dropped: {reasons}" if reasons else ""
    if stage == "cpt":
        return f"; {facts['tokens_trained']:,} tokens"
    if stage == "rounds":
        from medllm.pipeline.facts import describe_facts

        return f"; {describe_facts('rounds', facts)}"
    return ""
