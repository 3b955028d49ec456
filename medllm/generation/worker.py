"""One of several processes that answer: it holds a model of its own, takes batches on stdin, gives replies on stdout.

A line is one JSON object. First comes what to load; then a batch a line. Out go `ready` with the limits that the model
sets, `reply` as each is finished, `done` after each batch, `error` with the code and text of an expected error, and
`alive` as long as the work goes on: while loading, when processor time was spent; while answering, when a layer was
passed.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from queue import Queue
from typing import TYPE_CHECKING, Any, TextIO

from medllm.errors import MedllmError
from medllm.foreign_messages import silence_known_messages
from medllm.generation.types import Request, tokens_read, tokens_written
from medllm.processes import exit_after

if TYPE_CHECKING:  # importing it takes many seconds, and `alive` is to be heard before
    from medllm.generation.engine.batching import Batch

IDLE = 0.002
"""Processor time of a process that only waits, as a share of the time that passes: at most so much."""


class Out:
    """The lines to the parent process."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._last = 0.0
        self.counts: Callable[[], dict[str, int]] = dict
        """Counts the tokens written and read so far."""

    def tell(self, what: dict[str, Any]) -> None:
        """Send one line of JSON."""
        line = json.dumps(what, ensure_ascii=False) + "\n"
        with self._lock:
            self._file.write(line)
            self._file.flush()
            self._last = time.monotonic()

    def alive(self, every: float) -> None:
        """Report that the work goes on, unless something was sent less than `every` seconds ago."""
        if time.monotonic() - self._last >= every:
            self.tell({"alive": True, **self.counts()})


class Loading:
    """A thread that reports progress while the model is loaded, as long as that takes processor time."""

    def __init__(self, out: Out, every: float) -> None:
        self._out, self._every = out, every
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="alive while loading", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        spent = -1.0
        while True:
            if time.process_time() - spent > IDLE * self._every:
                self._out.alive(self._every)
            spent = time.process_time()
            if self._over.wait(self._every):
                return


def main() -> None:
    """Answer until stdin ends: then the parent process is gone, or needs no more."""
    out = Out(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    silence_known_messages()
    os.dup2(2, 1)  # what libraries print goes among the messages, never among the replies
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, which then ends this process
    lines = _lines_until_the_end()
    try:
        _work(lines, out)
    except MedllmError as error:
        out.tell({"error": {"code": error.code, "text": str(error)}})
        sys.exit(1)


def _work(lines: "Queue[str]", out: Out) -> None:
    message = json.loads(lines.get())
    if "gpu" in message:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu_of(message["gpu"], os.environ.get("CUDA_VISIBLE_DEVICES", ""))
    with Loading(out, message["beat"]):
        from medllm.generation.engine.choice import open_generator

        adapters = {name: Path(folder) for name, folder in message["adapters"].items()}
        generator = open_generator(message["engine"], Path(message["base"]), adapters or None, **message["options"])
    out.counts = lambda: {"written": tokens_written(generator), "read": tokens_read(generator)}
    _beat_in_every_layer(generator.model, lambda: out.alive(message["beat"]))
    out.tell({"ready": asdict(generator.limits), "engine": generator.engine})
    while True:
        batch = batch_of(json.loads(lines.get()))
        for delta in generator.answer(batch):
            if delta.reply is not None:
                out.tell({"reply": asdict(delta.reply)})
        out.tell({"done": True})


def gpu_of(number: int, visible: str) -> str:
    """The name of a GPU, by its number among those that are visible.

    >>> gpu_of(1, "GPU-a,GPU-b"), gpu_of(1, "")
    ('GPU-b', '1')
    """
    names = [name for name in visible.split(",") if name.strip()]
    return names[number] if number < len(names) else str(number)


def _beat_in_every_layer(model: Any, beat: Callable[[], None]) -> None:  # noqa: ANN401
    """Have every pass through a layer call `beat`: a pass through a large model may itself take minutes."""
    for module in model.modules():
        if type(module).__name__ == "ModuleList":
            for layer in module:
                layer.register_forward_pre_hook(lambda *_: beat())


def _lines_until_the_end() -> "Queue[str]":
    """Read stdin beside the work, so that its end ends this process at once, even in the middle of a batch."""
    lines: Queue[str] = Queue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)

    exit_after(read, code=0)
    return lines


def as_line(batch: "Batch") -> str:
    """A batch as one line."""
    asked = [[asdict(request), own] for request, own in zip(batch.requests, batch.tokens, strict=True)]
    return json.dumps({"prefix": batch.prefix, "asked": asked}, ensure_ascii=False) + "\n"


def batch_of(message: dict[str, Any]) -> "Batch":
    """A batch from what `as_line` wrote."""
    from medllm.generation.engine.batching import Batch

    asked = message["asked"]
    requests = (
        Request(**{**fields, "messages": tuple(fields["messages"]), "stop": tuple(fields["stop"])})
        for fields, _ in asked
    )
    return Batch(tuple(message["prefix"]), tuple(requests), tuple(tuple(own) for _, own in asked))


if __name__ == "__main__":
    main()
