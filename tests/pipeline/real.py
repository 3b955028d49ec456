"""A run of the real stages on random weights, with a fuse that kills it without warning at a drawn moment."""

import json
import os
import signal
import sys
import threading
from collections import Counter
from pathlib import Path

from medllm.hub import connect
from medllm.launch import here
from medllm.pipeline import Bench, make_plan, publish, run
from medllm.recipe import read_recipe
from medllm.recipe.settings import STAGES

TOUCHES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "socket.connect", "sqlite3.connect")
"""What a process does to the world outside it, as Python tells its audit hooks; `open` counts where it writes."""


class Fuse:
    """Counts what a run does to disk and network in each of its parts, and kills it at the one that was drawn."""

    def __init__(self, part: str = "", touch: int = 0, seconds: float = 0.0) -> None:
        self.part, self.touch, self.seconds = part, touch, seconds
        self.now = ""
        self.touches: Counter[str] = Counter()
        sys.addaudithook(self._hear)

    def say(self, text: str) -> None:
        """Notice from what the run says which part it is in."""
        part, _, rest = text.partition(": ")
        if part in (*STAGES, "publish"):
            self.now = "" if rest.startswith("stands as") else part
            if self.now == self.part and self.seconds:
                threading.Timer(self.seconds, die).start()
                self.seconds = 0.0

    def _hear(self, event: str, args: tuple[object, ...]) -> None:
        if self.now and (event in TOUCHES or (event == "open" and _writes(args))):
            self.touches[self.now] += 1
            if self.now == self.part and self.touches[self.now] == self.touch:
                die()


def _writes(args: tuple[object, ...]) -> bool:
    mode, flags = args[1], args[2]
    return any(sign in mode for sign in "wax+") if isinstance(mode, str) else bool(flags and int(str(flags)) & 3)


def die() -> None:
    """As `kill -9` does: nothing is closed, nothing is written, nobody is told."""
    os.kill(os.getpid(), signal.SIGKILL)


def main(folder: Path, fuse: tuple[str, int, float]) -> None:
    """What `medllm run` does; writes down at the end how often each part touched the world."""
    os.environ["TQDM_DISABLE"] = "1"
    with (folder / "log.txt").open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    fused = Fuse(*fuse)
    with connect(str(folder / "hub"), "clinic") as hub:
        plan = make_plan(read_recipe(folder / "tiny.yaml"), hub)
        bench = Bench(hub, folder / "runs", fused.say)
        made = run(plan, bench, here.launch, lambda plan: None)
        fused.say("publish: begins")
        publish(plan, made, bench)
        fused.now = ""
    (folder / "touches.json").write_text(json.dumps(fused.touches), encoding="utf-8")
