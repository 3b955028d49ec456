"""Many processes answer, each with a model of its own on a device of its own; requests are shared out batch by batch.

Batches are those that one process would make, so the replies are the same. A free process gets the next one. Replies
come back as they are finished and are written down by the caller, so any number of processes can go on later. When one
process dies, or shows no life for `SILENT` seconds, all others are ended, and its message is shown. On a Slurm job of
several nodes `srun` starts those of the other nodes, and their lines come through it.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from medllm.errors import ModelError
from medllm.generation.engine.batching import Batch, BatchLimits, PromptReader, plan, refuse_strangers, too_long
from medllm.generation.types import Delta, Reply, Request
from medllm.generation.worker import as_line
from medllm.recipe.hardware import nodes
from medllm.recipe.servers import LOCAL, TRANSFORMERS
from medllm.weights.load import import_torch, load_tokenizer

LAST_LINES = 8
"""Lines of a dead process's messages that are kept."""
WORKER = [sys.executable, "-m", "medllm.generation.worker"]
BEAT = 5.0
"""Seconds after which a process that loads or answers reports that its work goes on."""
SILENT = 45.0
"""Seconds without a word after which a process that has work counts as hung."""
LOOK = 1.0
"""Seconds between two looks at who is silent."""
END = 10.0
"""Seconds that a process takes to end when it is killed."""
Heard = tuple[int, dict[str, Any] | None]
"""A process's number and its line; None when it has ended."""


def devices(wanted: int | None) -> list[str | None]:
    """The device of each process: by number for GPUs, each in turn, or None for the CPU.

    As many as are wanted; when that is left open, one for each GPU, or a single one on the CPU.
    """
    torch = import_torch()
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        return [None] * (wanted or 1)
    seen = [part for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part.strip()]
    names = seen if len(seen) == count else [str(number) for number in range(count)]
    return [names[number % count] for number in range(wanted or count)]


@dataclass(frozen=True)
class Place:
    """Where a process answers."""

    device: str | None
    """A GPU, or None for the CPU."""
    node: int = 0
    """The number of the machine; 0 is this one."""

    def __str__(self) -> str:
        on = "the CPU" if self.device is None else f"GPU {self.device}"
        return f"{on} of node {self.node + 1}" if self.node else on

    @property
    def command(self) -> list[str]:
        """The command that starts a worker here."""
        if not self.node:
            return WORKER
        each = os.environ.get("SLURM_CPUS_PER_TASK", "1")
        step = ["srun", "--overlap", "--nodes=1", "--ntasks=1", f"--relative={self.node}", f"--cpus-per-task={each}"]
        return [*step, *WORKER]


def places_on(machines: int, devices: Sequence[str | None]) -> list[Place]:
    """The same devices on every machine; another machine's GPUs go by number, since only this one's names are known."""
    names = list(dict.fromkeys(devices))
    others = [None if device is None else str(names.index(device)) for device in devices]
    here = [Place(device) for device in devices]
    return here + [Place(device, node) for node in range(1, machines) for device in others]


class Process:
    """One process that answers."""

    def __init__(self, number: int, place: Place, given: dict[str, Any], of: int, heard: "Queue[Heard]") -> None:
        self.number, self.place = number, place
        environment = dict(os.environ)
        if place.device is None:
            environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // of)))
        elif not place.node:
            environment["CUDA_VISIBLE_DEVICES"] = place.device
        else:  # srun names the GPUs of its node itself
            given = {**given, "gpu": int(place.device)}
        self.running = subprocess.Popen(
            place.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            encoding="utf-8",
            errors="replace",
        )
        self.last: deque[str] = deque(maxlen=LAST_LINES)
        self.at_work = True
        """Whether it has something to do: its model to load, or a batch."""
        self.words = self._counted = 0
        """How many lines it has sent."""
        self._silent = 0.0
        self.written = self.read = 0
        """Tokens of replies that it has reported as written, and of prompts as read."""
        self._threads = [
            threading.Thread(target=self._copy_messages, daemon=True),
            threading.Thread(target=self._hear, args=(heard,), daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        self.give(json.dumps(given) + "\n")

    def give(self, line: str) -> None:
        """Send one line; a process that is gone is noticed by its silence."""
        assert self.running.stdin is not None
        try:
            self.running.stdin.write(line)
            self.running.stdin.flush()
        except OSError:
            return

    def end(self) -> None:
        """End it, whatever it does, wait until it is gone, and close what led to it."""
        if self.place.node:  # srun hands this on, and ends when its process has ended
            self.running.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.running.wait(END)
        self.running.kill()
        try:
            self.running.wait(END)
        except subprocess.TimeoutExpired:  # in a call to the system that does not return: it ends with that call
            return
        for thread in self._threads:
            thread.join()
        for pipe in (self.running.stdin, self.running.stdout, self.running.stderr):
            assert pipe is not None
            with suppress(OSError):  # what was still to be sent is dropped
                pipe.close()

    def ending(self) -> str:
        """Describe how it ended, once all its messages are read."""
        code = self.running.wait()
        self._threads[0].join(timeout=5)
        return f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"

    def silent_for(self, passed: float) -> float:
        """Count so many seconds; how many there are since its last line, or since it got its work."""
        if self.words != self._counted or not self.at_work:
            self._counted, self._silent = self.words, 0.0
        else:
            self._silent += passed
        return self._silent

    def last_message(self) -> str:
        """Return the last line that it printed."""
        return next((line.strip() for line in reversed(self.last) if line.strip()), "none")

    def _hear(self, heard: "Queue[Heard]") -> None:
        assert self.running.stdout is not None
        for line in self.running.stdout:
            self.words += 1
            try:
                message = json.loads(line)
            except ValueError:  # cut off in the middle: it is ending
                break
            self.written, self.read = message.get("written", self.written), message.get("read", self.read)
            if "alive" not in message:
                heard.put((self.number, message))
        heard.put((self.number, None))

    def _copy_messages(self) -> None:
        assert self.running.stderr is not None
        for line in self.running.stderr:
            self.last.append(line)
            sys.stderr.write(line)


class SpreadGenerator:
    """Answers with a process for each device on each node; they are started with the first request."""

    def __init__(
        self,
        base: Path,
        adapters: dict[str, Path] | None,
        places: Sequence[str | None],
        *,
        engine: str = LOCAL,
        **options: Any,  # noqa: ANN401
    ) -> None:
        self.base, self.adapters, self.each = base, adapters or {}, len(places)
        self.places = places_on(nodes(), places)
        # Processes on the same device, and all on the CPU, share its memory.
        options["sharing"] = max(self.places.count(place) for place in self.places)
        self.given = {
            "engine": engine,
            "base": str(base.absolute()),
            "adapters": {name: str(folder.absolute()) for name, folder in self.adapters.items()},
            "options": options,
            "beat": BEAT,
        }
        self.reader = PromptReader(load_tokenizer(base), options.get("templates"))
        self._processes: list[Process] = []
        self.engine = ""
        """Name and version of the engine, once the first process has loaded its model."""

    @property
    def written(self) -> int:
        """Tokens that the processes have reported as written, a few seconds late."""
        return sum(process.written for process in self._processes)

    @property
    def read(self) -> int:
        """Tokens of prompts that the processes have reported as read."""
        return sum(process.read for process in self._processes)

    def choose(self) -> str:
        """Have one process load its model, which shows the engine that `auto` takes; then end it."""
        if not self.engine:
            heard: Queue[Heard] = Queue()
            process = Process(0, self.places[0], self.given, self.each, heard)
            try:
                self._ready([process], heard)
            finally:
                process.end()
        return self.engine

    def generate(self, requests: Sequence[Request]) -> Iterator[Reply]:
        """Answer every request once, in the order in which answers become ready."""
        refuse_strangers(requests, tuple(self.adapters))
        if self.given["engine"] == TRANSFORMERS:  # which reads each prompt as a whole
            requests = [replace(request, shared=0) for request in requests]
        heard: Queue[Heard] = Queue()
        processes: list[Process] = []
        self._processes = processes
        try:
            for number, place in enumerate(self.places):
                processes.append(Process(number, place, self.given, self.each, heard))
            limits = self._ready(processes, heard)
            batches, unfit = plan(requests, self.reader, limits)
            yield from too_long(unfit)
            yield from _share_out(processes, heard, batches)
        finally:
            for process in processes:
                process.end()

    def stream(self, requests: Sequence[Request]) -> Iterator[Delta]:
        """Answer all requests, each reply in one piece."""
        for reply in self.generate(requests):
            yield Delta(reply.key, reply.text, reply)

    def _ready(self, processes: list[Process], heard: "Queue[Heard]") -> BatchLimits:
        """Wait until every process has loaded its model; the limits are those of the one with the least room."""
        ready = []
        for _ in processes:
            process, message = _next(processes, heard)
            process.at_work = False
            ready.append(BatchLimits(**message["ready"]))
            self.engine = self.engine or message["engine"]
        return min(ready, key=lambda limits: limits.tokens)


def _share_out(processes: list[Process], heard: "Queue[Heard]", batches: list[Batch]) -> Iterator[Reply]:
    waiting = deque(batches)
    for process in processes:
        _give_one(process, waiting)
    while any(process.at_work for process in processes):
        process, message = _next(processes, heard)
        if "reply" in message:
            yield Reply(**{**message["reply"], "tokens": tuple(message["reply"]["tokens"])})
        else:
            _give_one(process, waiting)


def _give_one(process: Process, waiting: deque[Batch]) -> None:
    """Give a process that is free the next batch, if there is one."""
    process.at_work = bool(waiting)
    if waiting:
        process.give(as_line(waiting.popleft()))


def _next(processes: list[Process], heard: "Queue[Heard]") -> tuple[Process, dict[str, Any]]:
    """Return the next line of any process; raise when one has ended, met a fault, or been silent for too long."""
    looked = time.monotonic()
    while True:
        try:
            number, message = heard.get(timeout=LOOK)
        except Empty:
            message = {}
        if message is None or "error" in message:
            raise _gone(processes[number], message)
        _count_silence(processes, time.monotonic() - looked)
        looked = time.monotonic()
        if message:
            return processes[number], message


def _count_silence(processes: list[Process], passed: float) -> None:
    """Add what has passed to the silence of each; what is more than two looks, we were stopped ourselves."""
    for process in processes:
        if process.silent_for(min(passed, 2 * LOOK)) > SILENT:
            raise ModelError(
                "generation.process-silent",
                f"process {process.number} on {process.place} has sent nothing for {SILENT:.0f} seconds; its last "
                f"message: {process.last_message()}. Run again, or with fewer `num_processes`, to continue from the "
                "answers so far.",
            )


@dataclass(frozen=True)
class ProcessError:
    """The code and the text of an error that a process reports."""

    code: str
    text: str


def _gone(process: Process, message: dict[str, Any] | None) -> ModelError:
    if message is not None:
        error = ProcessError(**message["error"])
        return ModelError(error.code, error.text)
    return ModelError(
        "generation.process-ended",
        f"process {process.number} on {process.place} {process.ending()}; its last message: {process.last_message()}. "
        "Run again, with fewer `num_processes` if memory was short, to continue from the answers so far.",
    )
