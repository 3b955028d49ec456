"""Replies written down as they come, so that nothing is asked or paid for twice."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from medllm.generation.types import Generator, Reply, Request


def generate_resumable(generator: Generator, requests: Sequence[Request], path: Path) -> Iterator[Reply]:
    """Every reply once: first those in the file, then the rest as they are made, each on the disk before it is given.

    A line cut off by a crash is taken away and its question asked again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    known = _read(path)
    wanted = {request.key for request in requests}
    yield from (reply for key, reply in known.items() if key in wanted)
    missing = [request for request in requests if request.key not in known]
    if not missing:
        return
    with path.open("a", encoding="utf-8") as file:
        for reply in generator.generate(missing):
            file.write(json.dumps(asdict(reply), ensure_ascii=False) + "\n")
            file.flush()
            yield reply


def _read(path: Path) -> dict[str, Reply]:
    if not path.is_file():
        return {}
    raw = path.read_bytes()
    whole = raw[: raw.rfind(b"\n") + 1]
    if len(whole) < len(raw):
        path.write_bytes(whole)
    rows = (json.loads(line) for line in whole.decode("utf-8").splitlines())
    return {row["key"]: Reply(**{**row, "tokens": tuple(row["tokens"])}) for row in rows}
