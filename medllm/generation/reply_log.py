"""Each run's log of its replies: every reply is on the disk before the next, and what is kept is not asked again."""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import distributions
from pathlib import Path

from medllm.generation.answer_store import Answerer, AnswerKey, AnswerStore, hash_of_value
from medllm.generation.types import (
    Delta,
    Generator,
    Reply,
    Request,
    choose_engine,
    engine_of,
    tokens_read,
    tokens_written,
)
from medllm.work_progress import WorkProgress, watched

MOST_PARTS = 3
"""Parts that a line of progress counts one by one."""


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


def generate_watched(
    generator: "KeptGenerator",
    requests: Sequence[Request],
    path: Path,
    what: str,
    unit: str,
    parts: Mapping[str, str] | None = None,
) -> Iterator[Reply]:
    """The same, and the progress is reported: replies and tokens, those in flight among them.

    `parts` names the part of each request by its key; the parts that are begun and not finished are counted too.
    """
    count = finished = settled = 0
    parts = parts or {}
    room = {request.key: request.max_new_tokens for request in requests}
    wanted, done = Counter(parts.values()), Counter[str]()

    def state() -> WorkProgress:
        tokens = max(finished, generator.written)
        begun = [f"{part} {done[part]:,} of {wanted[part]:,}" for part in wanted if 0 < done[part] < wanted[part]]
        also = ", ".join(begun[:MOST_PARTS]) if len(wanted) > 1 else ""
        under_way = max(0, generator.written - generator.answered)
        return WorkProgress(
            what,
            count,
            len(requests),
            unit,
            tokens,
            most_tokens=sum(room.values()),
            tokens_settled=settled + under_way,
            tokens_read=generator.read,
            also=also,
        )

    with watched(state):
        for reply in generate_resumable(generator, requests, path):
            yield reply
            done[parts.get(reply.key, "")] += 1
            count += 1
            finished += reply.completion_tokens
            settled += room[reply.key]


def _read(path: Path) -> dict[str, Reply]:
    if not path.is_file():
        return {}
    raw = path.read_bytes()
    whole = raw[: raw.rfind(b"\n") + 1]
    if len(whole) < len(raw):
        path.write_bytes(whole)
    rows = (json.loads(line) for line in whole.decode("utf-8").splitlines())
    return {row["key"]: Reply(**{**row, "tokens": tuple(row["tokens"])}) for row in rows}


class KeptGenerator:
    """A generator that gives what is kept, asks the rest, and keeps each reply before it gives it."""

    def __init__(self, generator: Generator, store: AnswerStore, who: Mapping[str, Answerer]) -> None:
        self.generator, self.store, self.who = generator, store, who
        """`who` has who answers each request, by its key; also those that another generator of this run answers."""
        self.kept = 0
        """How many replies came from the store."""
        self.answered = 0
        """Tokens of the replies that the generator has finished."""

    @property
    def written(self) -> int:
        """Tokens written so far, kept replies aside."""
        return tokens_written(self.generator)

    @property
    def read(self) -> int:
        """Tokens of prompts read so far."""
        return tokens_read(self.generator)

    def key_of(self, request: Request, reply: Reply) -> AnswerKey:
        """Return what the reply to a request is kept under: its engine is the one that wrote it."""
        return AnswerKey.of(request, self.who[request.key].by(reply.by))

    def generate(self, requests: Sequence[Request]) -> Iterator[Reply]:
        """Answer every request once; of requests that are equal, one is asked."""
        engine = self._engine(requests)
        keys = {request.key: AnswerKey.of(request, self.who[request.key].by(engine)) for request in requests}
        asked_at: dict[str, set[str]] = defaultdict(set)
        for who in self.who.values():
            asked_at[who.by(engine).model].add(who.place)
        stored = self.store.find(set(keys.values()), asked_at)
        twins: dict[AnswerKey, list[Request]] = defaultdict(list)
        for request in requests:
            twins[keys[request.key]].append(request)
        for key, reply in stored.items():
            for request in twins.pop(key):
                self.kept += 1
                yield replace(reply, key=request.key)
        first = {equal[0].key: (key, equal) for key, equal in twins.items()}
        if not first:  # and no model is loaded
            return
        for answered in self.generator.generate([equal[0] for _, equal in first.values()]):
            equal = first[answered.key][1]
            reply = replace(answered, by=engine_of(self.generator))
            self.answered += reply.completion_tokens
            self.store.add([(self.key_of(equal[0], reply), reply)])
            for request in equal:
                yield replace(reply, key=request.key)

    def _engine(self, requests: Sequence[Request]) -> str:
        """Return the engine that `auto` takes here: as it was chosen before with these versions, else chosen now."""
        who = {self.who[request.key].model: self.who[request.key] for request in requests}
        if not any(answerer.auto for answerer in who.values()):
            return ""
        about = [sorted(who), _versions(), os.environ.get("MEDLLM_VLLM"), os.environ.get("CUDA_VISIBLE_DEVICES")]
        engine = self.store.chosen_engine(hash_of_value(about))
        if not engine and (engine := choose_engine(self.generator)):
            self.store.keep_choice(hash_of_value(about), engine)
        return engine

    def stream(self, requests: Sequence[Request]) -> Iterator[Delta]:
        """Answer all requests, each reply in one piece."""
        for reply in self.generate(requests):
            yield Delta(reply.key, reply.text, reply)


def _versions() -> list[str]:
    """Return the versions of what decides which engine `auto` takes, as far as it is installed."""
    deciding = ("medllm", "torch", "transformers")
    return [f"{name} {distribution.version}" for name in deciding for distribution in distributions(name=name)]
