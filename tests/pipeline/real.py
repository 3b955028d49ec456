"""A run of the real stages on random weights, with a fuse that kills it without warning at a drawn moment."""

import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from medllm.hub import connect
from medllm.launch import local
from medllm.pipeline import BuildContext, make_plan, publish, run
from medllm.recipe import read_recipe
from medllm.recipe.settings import STAGES

PARTS = (*STAGES, "publish")
"""What a run does, in this order."""

TOUCHES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "socket.connect", "sqlite3.connect")
"""What a process does to the world outside it, as Python tells its audit hooks; `open` counts where it writes."""


LAST_OF_A_CHECKPOINT = "trainer_state.json"
"""The file that the trainer writes last into a checkpoint."""


class Fuse:
    """Counts what a run does to disk and network in each of its parts, and kills it at the one that was drawn.

    With `seconds` it is the clock that kills, so long after the part began; without a part, after the run began. With
    `checkpoint` it is the first touch after the checkpoint of that number. A part that ends before its moment comes is
    killed at its end: a run that got through would leave nothing to kill.
    """

    def __init__(self, part: str = "", touch: int = 0, seconds: float = 0.0, checkpoint: int = 0) -> None:
        self.part, self.touch, self.seconds, self.checkpoint = part, touch, seconds, checkpoint
        self.now, self.since = "", time.monotonic()
        self.touches: Counter[str] = Counter()
        self.checkpoints: Counter[str] = Counter()
        self.lasted: Counter[str] = Counter()
        if seconds and not part:
            self._burn()
        sys.addaudithook(self._hear)

    def say(self, text: str) -> None:
        """Notice from what the run says which part it is in."""
        part, _, rest = text.partition(": ")
        if part in PARTS and self.now != "publish":  # which tells of stages too
            if self.part and PARTS.index(part) > PARTS.index(self.part):
                die()
            self.pass_to("" if rest.startswith("exists as") else part)
            if self.now == self.part and self.seconds:
                self._burn()

    def pass_to(self, part: str) -> None:
        """Another part begins, or none: how long the last one took is added to what it took before."""
        if self.now and self.now != part:
            self.lasted[self.now] += time.monotonic() - self.since
        if self.now != part:
            self.now, self.since = part, time.monotonic()

    def _burn(self) -> None:
        timer = threading.Timer(self.seconds, die)
        timer.daemon = True
        timer.start()
        self.seconds = 0.0

    def _hear(self, event: str, args: tuple[object, ...]) -> None:
        if self.now and (event in TOUCHES or (event == "open" and _writes(args))):
            if self.now == self.part and self.checkpoint and self.checkpoints[self.now] == self.checkpoint:
                die()
            self.touches[self.now] += 1
            if self.now == self.part and self.touches[self.now] == self.touch:
                die()
            if event == "open" and str(args[0]).endswith(LAST_OF_A_CHECKPOINT):
                self.checkpoints[self.now] += 1


def _writes(args: tuple[object, ...]) -> bool:
    mode, flags = args[1], args[2]
    return any(sign in mode for sign in "wax+") if isinstance(mode, str) else bool(flags and int(str(flags)) & 3)


def die() -> None:
    """As `kill -9` does: nothing is closed, nothing is written, nobody is told."""
    os.kill(os.getpid(), signal.SIGKILL)


def main(folder: Path, fuse: tuple[str, int, float, int]) -> None:
    """Do what `medllm run` does; write at the end each part's touches of the world, its checkpoints and its seconds."""
    os.environ["TQDM_DISABLE"] = "1"
    with (folder / "log.txt").open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    fused = Fuse(*fuse)
    with connect(str(folder / "hub"), "clinic") as hub:
        plan = make_plan(read_recipe(folder / "tiny.yaml"), hub)
        bench = BuildContext(hub, folder / "runs", fused.say)
        made = run(plan, bench, local.launch, lambda plan: None)
        fused.say("publish: begins")
        publish(plan, made, bench)
        fused.pass_to("")
    counts = {
        part: {"touches": touches, "seconds": fused.lasted[part], "checkpoints": fused.checkpoints[part]}
        for part, touches in fused.touches.items()
    }
    (folder / "parts.json").write_text(json.dumps(counts), encoding="utf-8")
