"""The quickstart's voice: libraries speak to a log, people read a plan, progress and a word on each stage."""

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from medllm.hub import Artifact
    from medllm.pipeline import Bench, Item, Plan
    from medllm.recipe.reference import Stage

WORDS = {
    "corpus": "texts are dated, licensed, freed of doubles and held against the exams that will be asked",
    "cpt": "the base reads the corpus, in which the new diseases are",
    "preferences": "the trained model answers past exams; right and wrong explanations are ranked below verified ones",
    "rpo": "it learns to prefer the better explanation without losing the right answer",
    "merge": "adapters become one model, proved equal to them",
    "evaluate": "1,000 questions of later years, asked plainly and asked to explain first",
    "space": "the page that lays the answers side by side",
}
"""What happens at a stage and why it matters."""
EXPECTED = {"corpus": 5, "cpt": 120, "preferences": 21, "rpo": 137, "merge": 8, "evaluate": 41, "space": 1}
"""Seconds of each stage on two idle cores, to begin with; the time left is scaled by how long those done took."""
EVERY = 30.0
"""Seconds between two lines of progress where there is no terminal."""


@contextmanager
def quiet(log: Path) -> Iterator[Console]:
    """Send what libraries write on stdout and stderr to a file; the console given speaks to the real stderr."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.stdout.flush()
    sys.stderr.flush()
    out, err = os.dup(1), os.dup(2)
    with log.open("ab") as file, os.fdopen(os.dup(err), "w", encoding="utf-8") as voice:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield Console(file=voice, highlight=False, soft_wrap=True)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(out, 1)
            os.dup2(err, 2)
            os.close(out)
            os.close(err)


class Watch:
    """Says what is happening, how far it is and how long it may take."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._left: list[str] = []
        self._spent: dict[str, float] = {}

    def say(self, text: str) -> None:
        """A line with the minutes gone."""
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        self._console.print(f"{minutes:3d}:{seconds:02d}  {text}", markup=False)

    def note(self, text: str) -> None:
        """The pipeline's own words are for the log."""
        print(text, file=sys.stderr, flush=True)

    def plan(self, plan: "Plan") -> None:
        """What stands and what is to be made, and about how long that takes."""
        self._left = [item.stage for item in plan.missing]
        for item in plan.items:
            state = "stands" if item.standing else "to make"
            self.say(f"  {item.stage:<12}{state:<9}{item.repo_id}")
        if self._left:
            self.say(
                f"about {_clock(sum(EXPECTED[stage] for stage in self._left))} on two idle cores, or less (an estimate)"
            )
        else:
            self.say("everything stands; nothing to make")

    def launch(self, plan: "Plan", item: "Item", made: dict["Stage", "Artifact"], bench: "Bench") -> None:
        """Make a stage here, with a word on it and its progress told."""
        from medllm.launch.here import launch

        self.say(f"{item.stage}: {WORDS[item.stage]}")
        place = bench.work / plan.recipe.name / f"{item.stage}-{item.digest[:12]}" / "making.part"
        began, ended = time.monotonic(), threading.Event()
        teller = threading.Thread(target=self._progress, args=(item.stage, place, ended), daemon=True)
        teller.start()
        try:
            launch(plan, item, made, bench)
        finally:
            ended.set()
            teller.join()
        self._spent[item.stage] = time.monotonic() - began
        self._left.remove(item.stage)
        self.say(f"{item.stage}: done in {_clock(self._spent[item.stage])}{_told(item.stage, place.parent / 'made')}")

    def finish(self) -> None:
        """The whole time."""
        self.say(f"finished in {_clock(time.monotonic() - self._began)}")

    def _progress(self, stage: str, place: Path, ended: threading.Event) -> None:
        began, alive = time.monotonic(), self._console.is_terminal
        status = self._console.status("") if alive else None
        if status:
            status.start()
        while not ended.wait(2.0 if alive else EVERY):
            gone = time.monotonic() - began
            line = f"{stage}: {_clock(gone)} gone{_steps(place)}, about {_clock(self._rest(stage, gone))} left in all"
            status.update(line) if status else self.say(line)
        if status:
            status.stop()

    def _rest(self, stage: str, gone: float) -> float:
        """Seconds left, by how this machine did so far."""
        expected = sum(EXPECTED[one] for one in self._spent)
        pace = sum(self._spent.values()) / expected if expected > 100 else 1.0
        later = sum(EXPECTED[one] for one in self._left if one != stage)
        return max(EXPECTED[stage] * pace - gone, 1.0) + later * pace


def _steps(place: Path) -> str:
    """The last step that a training wrote down."""
    try:
        line: dict[str, Any] = json.loads((place / "training" / "log.jsonl").read_text("utf-8").splitlines()[-1])
        return f", step {line['step']}, loss {line['loss']:.2f}" if "loss" in line else f", step {line['step']}"
    except (OSError, IndexError, KeyError, ValueError):
        return ""


def _told(stage: str, made: Path) -> str:
    """One figure of what was made, from the stage's own facts."""
    facts = json.loads((made / "facts.json").read_text("utf-8"))
    if stage == "corpus":
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(facts["reasons"].items()))
        return f"; dropped: {reasons}" if reasons else ""
    if stage == "cpt":
        return f"; {facts['tokens_trained']:,} tokens"
    return ""


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
