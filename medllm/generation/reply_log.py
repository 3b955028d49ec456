"""Replies on the disk: each run has its log, and all runs of a machine share a store, so nothing is asked twice.

The store keeps a reply under who answered and what was asked: the model's content (of a server its name and request
options), the prompt, and the decoding with its seed. What does not alter the reply is no part of that: the batch, the
number of processes, the server's address. A prompt that did not fit and a reply that was refused are not kept.
"""

import fcntl
import hashlib
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from medllm.generation.types import Delta, Generator, Reply, Request, tokens_written
from medllm.work_progress import WorkProgress, watched

FOLDER = "MEDLLM_ANSWERS"
"""The environment variable of the store's folder; `none` keeps no store."""
LOCAL = "local"
"""The place of a model that answers on this machine."""
MOST_PARTS = 3
"""Parts that a line of progress counts one by one."""
_KEY = re.compile(r"([0-9a-f]{16}):([0-9a-f]{32}):([0-9]+)@(local|[0-9a-f]{8})")


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
    count = finished = 0
    parts = parts or {}
    wanted, done = Counter(parts.values()), Counter[str]()

    def state() -> WorkProgress:
        tokens = max(finished, generator.written)
        most = sum(request.max_new_tokens for request in requests)
        begun = [f"{part} {done[part]:,} of {wanted[part]:,}" for part in wanted if 0 < done[part] < wanted[part]]
        also = ", ".join(begun[:MOST_PARTS]) if len(wanted) > 1 else ""
        return WorkProgress(what, count, len(requests), unit, tokens, most, also)

    with watched(state):
        for reply in generate_resumable(generator, requests, path):
            yield reply
            done[parts.get(reply.key, "")] += 1
            count += 1
            finished += reply.completion_tokens


def _read(path: Path) -> dict[str, Reply]:
    if not path.is_file():
        return {}
    raw = path.read_bytes()
    whole = raw[: raw.rfind(b"\n") + 1]
    if len(whole) < len(raw):
        path.write_bytes(whole)
    rows = (json.loads(line) for line in whole.decode("utf-8").splitlines())
    return {row["key"]: Reply(**{**row, "tokens": tuple(row["tokens"])}) for row in rows}


@dataclass(frozen=True)
class Answerer:
    """Who answers: what decides the replies of a model besides the request."""

    identity: Mapping[str, Any]
    """The model and how it computes, or a server's name for it and the options of its requests."""
    place: str = LOCAL
    """`local`, or eight hex digits of the server's address."""

    @classmethod
    def behind(cls, address: str, identity: Mapping[str, Any]) -> Self:
        """Name a model behind an address."""
        return cls({"engine": "server", **identity}, hashlib.sha256(address.rstrip("/").encode()).hexdigest()[:8])


@dataclass(frozen=True)
class AnswerKey:
    """What a reply is kept under."""

    model: str
    """The hash of who answers, without the address."""
    prompt: str
    """The hash of the prompt and of the decoding, without the room for the reply."""
    max_new_tokens: int
    place: str

    @classmethod
    def of(cls, request: Request, answerer: Answerer) -> Self:
        """Build the key of a request; a greedy reply has no seed."""
        drawn = [request.temperature, request.top_p, request.seed] if request.temperature else None
        asked = [request.text, request.messages, request.stop, drawn]
        return cls(_hash(answerer.identity)[:16], _hash(asked)[:32], request.max_new_tokens, answerer.place)

    @classmethod
    def read(cls, text: str | None) -> Self | None:
        """Read a key as `str` writes it; None for what is no key.

        >>> AnswerKey.read("../../etc") is None
        True
        """
        found = _KEY.fullmatch(text or "")
        return cls(found[1], found[2], int(found[3]), found[4]) if found else None

    def __str__(self) -> str:
        """Return the form in records: MODEL:PROMPT:MAX_NEW_TOKENS@PLACE."""
        return f"{self.model}:{self.prompt}:{self.max_new_tokens}@{self.place}"


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _serves(reply: Reply, kept_room: int, room: int) -> bool:
    """Return whether a reply that was written with room for `kept_room` tokens is the reply with `room`.

    A reply that ended by itself is the same with more room.
    """
    return room == kept_room or (
        reply.finish_reason == "stop" and (room > kept_room or 0 < reply.completion_tokens < room)
    )


@dataclass(frozen=True)
class AnswerStore:
    """The replies that runs of this machine keep: one file of JSON lines for each model, safe for several processes."""

    folder: Path | None
    """None keeps nothing."""

    @classmethod
    def here(cls) -> Self:
        """Return the store of this machine: the folder of MEDLLM_ANSWERS, else one beside the Hub's cache."""
        named = os.environ.get(FOLDER)
        if named:
            return cls(None if named == "none" else Path(named))
        cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")
        return cls(Path(os.environ.get("HF_HOME", cache)).expanduser() / "medllm" / "answers")

    def find(self, wanted: Collection[AnswerKey], asked_at: Mapping[str, Collection[str]]) -> dict[AnswerKey, Reply]:
        """Return the kept replies of these keys; `asked_at` has the places of each model in this run.

        A server may move: where nothing is kept of an address, what is kept of one other address serves, unless this
        run asks that model at both.
        """
        found: dict[AnswerKey, Reply] = {}
        by_model: dict[str, dict[str, list[AnswerKey]]] = defaultdict(lambda: defaultdict(list))
        for key in wanted:
            by_model[key.model][key.prompt].append(key)
        for model, prompts in by_model.items():
            places, candidates = set(), []
            for row in self._rows(model):
                places.add(row["at"])
                candidates += [(key, row) for key in prompts.get(row["key"], ())]
            moved: dict[AnswerKey, Reply] = {}
            for key, row in candidates:
                reply = _reply(row)
                if not _serves(reply, row["room"], key.max_new_tokens):
                    continue
                if row["at"] == key.place:
                    found[key] = reply
                elif key.place not in places and len(places) == 1 and len(asked_at[model]) == 1:
                    moved[key] = reply
            self.add(moved.items())  # from now on the server is known where it is
            found |= moved
        return found

    def add(self, replies: Iterable[tuple[AnswerKey, Reply]]) -> None:
        """Write replies down; each is on the disk when this returns."""
        if self.folder is None:
            return
        lines: dict[str, list[str]] = defaultdict(list)
        for key, reply in replies:
            if reply.finish_reason in ("stop", "length"):
                row = {"key": key.prompt, "at": key.place, "room": key.max_new_tokens}
                row = {**asdict(replace(reply, tokens=())), **row}
                lines[key.model].append(json.dumps(row, ensure_ascii=False))
        for model, own in lines.items():
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / f"{model}.jsonl").open("ab") as file:
                fcntl.lockf(file, fcntl.LOCK_EX)
                # The first line break ends a line that a killed process left half-written.
                file.write(("\n" + "\n".join(own) + "\n").encode("utf-8", "surrogatepass"))

    def restore(self, folder: Path) -> int:
        """Take over the replies in the records of an evaluation or in the samples of preferences; count them."""
        import pyarrow.parquet as pq

        known: dict[str, set[tuple[str, str, int]]] = {}
        new: list[tuple[AnswerKey, Reply]] = []
        names = ["answer_key", "completion", "finish_reason", "prompt_tokens", "tokens", "cost"]
        for path in [*sorted(folder.glob("records/*.parquet")), *sorted(folder.glob("samples/*.parquet"))]:
            if not set(names) <= set(pq.read_schema(path).names):
                continue
            for row in pq.read_table(path, columns=names).to_pylist():
                key = AnswerKey.read(row["answer_key"])
                if key is None or row["finish_reason"] not in ("stop", "length"):
                    continue
                if key.model not in known:
                    known[key.model] = {(one["key"], one["at"], one["room"]) for one in self._rows(key.model)}
                if (entry := (key.prompt, key.place, key.max_new_tokens)) not in known[key.model]:
                    known[key.model].add(entry)
                    new.append((key, _reply({**row, "key": "", "text": row["completion"]})))
        self.add(new)
        return len(new)

    def _rows(self, model: str) -> Iterator[dict[str, Any]]:
        path = self.folder / f"{model}.jsonl" if self.folder else None
        if path is None or not path.is_file():
            return
        with path.open("rb") as file:
            for line in file:
                try:
                    row = json.loads(line)
                except ValueError:  # empty, or cut off by a kill
                    continue
                if isinstance(row, dict) and {"key", "at", "room", "text", "finish_reason"} <= set(row):
                    yield row


def _reply(row: Mapping[str, Any]) -> Reply:
    return Reply(
        key=row["key"],
        text=row["text"],
        finish_reason=row["finish_reason"],
        prompt_tokens=row.get("prompt_tokens") or 0,
        completion_tokens=row.get("completion_tokens", row.get("tokens")) or 0,
        cost=row.get("cost") or 0.0,
    )


class KeptGenerator:
    """A generator that gives what is kept, asks the rest, and keeps each reply before it gives it."""

    def __init__(self, generator: Generator, store: AnswerStore, keys: Mapping[str, AnswerKey]) -> None:
        self.generator, self.store, self.keys = generator, store, keys
        """`keys` has the answer's key of each request's key."""
        self.kept = 0
        """How many replies came from the store."""

    @property
    def written(self) -> int:
        """Tokens written so far, kept replies aside."""
        return tokens_written(self.generator)

    def generate(self, requests: Sequence[Request]) -> Iterator[Reply]:
        """Answer every request once; of requests that are equal, one is asked."""
        asked_at: dict[str, set[str]] = defaultdict(set)
        for key in self.keys.values():
            asked_at[key.model].add(key.place)
        found = self.store.find({self.keys[request.key] for request in requests}, asked_at)
        twins: dict[AnswerKey, list[Request]] = defaultdict(list)
        for request in requests:
            twins[self.keys[request.key]].append(request)
        for key, reply in found.items():
            for request in twins.pop(key):
                self.kept += 1
                yield replace(reply, key=request.key)
        first = {equal[0].key: (key, equal) for key, equal in twins.items()}
        if not first:  # and no model is loaded
            return
        for reply in self.generator.generate([equal[0] for _, equal in first.values()]):
            key, equal = first[reply.key]
            self.store.add([(key, reply)])
            for request in equal:
                yield replace(reply, key=request.key)

    def stream(self, requests: Sequence[Request]) -> Iterator[Delta]:
        """Answer all requests, each reply in one piece."""
        for reply in self.generate(requests):
            yield Delta(reply.key, reply.text, reply)
