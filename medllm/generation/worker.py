"""One of several processes that answer: it holds a model of its own, takes batches on stdin, gives replies on stdout.

A line is one JSON object. First comes what to load; then a batch a line. Out go `ready` with the limits that the model
sets, `reply` as each is finished, `done` after each batch, or `fault` with the words of a foreseen error.
"""

import json
import os
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from queue import Queue
from typing import Any, TextIO

from medllm.errors import MedllmError
from medllm.generation.engine.batching import Asked, Batch
from medllm.generation.types import Request


def main() -> None:
    """Answer until stdin ends: then whoever started us is gone, or needs no more."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print goes among the messages, never among the replies
    lines = _lines_until_the_end()
    try:
        _work(lines, out)
    except MedllmError as fault:
        _tell(out, {"fault": str(fault)})
        sys.exit(1)


def _work(lines: "Queue[str]", out: TextIO) -> None:
    from medllm.generation.engine.local import LocalGenerator

    told = json.loads(lines.get())
    adapters = {name: Path(folder) for name, folder in told["adapters"].items()}
    generator = LocalGenerator(Path(told["base"]), adapters or None, **told["options"])
    _tell(out, {"ready": asdict(generator.limits)})
    while True:
        batch = batch_of(json.loads(lines.get()))
        for delta in generator.answer(batch):
            if delta.reply is not None:
                _tell(out, {"reply": asdict(delta.reply)})
        _tell(out, {"done": True})


def _lines_until_the_end() -> "Queue[str]":
    """Read stdin beside the work, so that its end is seen at once and ends us, in the middle of a batch too."""
    lines: Queue[str] = Queue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=read, name="end with the run", daemon=True).start()
    return lines


def _tell(out: TextIO, what: dict[str, Any]) -> None:
    out.write(json.dumps(what, ensure_ascii=False) + "\n")
    out.flush()


def as_line(batch: Batch) -> str:
    """A batch as one line."""
    asked = [[asdict(one.request), one.tokens] for one in batch.asked]
    return json.dumps({"prefix": batch.prefix, "asked": asked}, ensure_ascii=False) + "\n"


def batch_of(told: dict[str, Any]) -> Batch:
    """A batch from what `as_line` wrote."""
    asked = [
        Asked(
            Request(**{**one, "messages": tuple(one["messages"]), "stop": tuple(one["stop"])}),
            tuple(tokens),
        )
        for one, tokens in told["asked"]
    ]
    return Batch(tuple(told["prefix"]), tuple(asked))


if __name__ == "__main__":
    main()
