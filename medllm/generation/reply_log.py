"""Replies on the disk: each run has its log, and all runs of a machine share a store, so nothing is asked twice.

The store keeps a reply under who answered and what was asked: the model's content (of a server its name and request
options), the engine that answered, the prompt, and the decoding with its seed. What does not alter the reply is no part
of that: the batch, the number of processes, the server's address. A prompt that did not fit and a reply that was
refused are not kept.
"""

import fcntl
import hashlib
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Self

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
from medllm.recipe.servers import AUTO
from medllm.work_progress import WorkProgress, watched

FOLDER = "MEDLLM_ANSWERS"
"""The environment variable of the store's folder; `none` keeps no store."""
LOCAL = "local"
"""The place of a model that answers on this machine."""
MOST_PARTS = 3
"""Parts that a line of progress counts one by one."""
ENGINES = "engines.jsonl"
"""The file of the store that records which engine `auto` took."""
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
        read = generator.read
        return WorkProgress(what, count, len(requests), unit, tokens, most, tokens_read=read, also=also)

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

    @property
    def model(self) -> str:
        """The hash of who answers, without the address."""
        return _hash(self.identity)[:16]

    @property
    def auto(self) -> bool:
        """Whether the engine is chosen only when the model is there."""
        return bool(self.identity.get("engine") == AUTO)

    def by(self, engine: str) -> Self:
        """Return who answers where `auto` takes this engine (name and version); any other engine is as it is named."""
        return replace(self, identity={**self.identity, "engine": engine.split()[0]}) if self.auto and engine else self


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
        return cls(answerer.model, _hash(asked)[:32], request.max_new_tokens, answerer.place)

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
            _append(self.folder / f"{model}.jsonl", own)

    def chosen_engine(self, about: str) -> str:
        """Return the engine that `auto` took for models and versions with this hash; empty where it never chose."""
        path = self.folder / ENGINES if self.folder else None
        rows = _json_lines(path) if path else ()
        return next((str(row.get("engine", "")) for row in rows if row.get("about") == about), "")

    def keep_choice(self, about: str, engine: str) -> None:
        """Write down the engine that `auto` took, so that a model need not be loaded to find what is kept of it."""
        if self.folder is not None:
            _append(self.folder / ENGINES, [json.dumps({"about": about, "engine": engine})])

    def restore(self, folder: Path) -> int:
        """Take over the replies in the records of an evaluation or in the samples of preferences; count them."""
        import pyarrow.parquet as pq

        known: dict[str, set[tuple[str, str, int]]] = {}
        new: list[tuple[AnswerKey, Reply]] = []
        names = ["answer_key", "completion", "finish_reason", "prompt_tokens", "tokens", "cost"]
        engines = _engines(folder / "runs" / "runs.parquet")
        for path in [*sorted(folder.glob("records/*.parquet")), *sorted(folder.glob("samples/*.parquet"))]:
            if not set(names) <= set(pq.read_schema(path).names):
                continue
            asked = [name for name in ("model", "prompt") if name in pq.read_schema(path).names]
            for row in pq.read_table(path, columns=[*names, *asked]).to_pylist():
                key = AnswerKey.read(row["answer_key"])
                if key is None or row["finish_reason"] not in ("stop", "length"):
                    continue
                if key.model not in known:
                    known[key.model] = {(one["key"], one["at"], one["room"]) for one in self._rows(key.model)}
                if (entry := (key.prompt, key.place, key.max_new_tokens)) not in known[key.model]:
                    known[key.model].add(entry)
                    by = engines.get((row.get("model"), row.get("prompt")), "")
                    new.append((key, _reply({**row, "key": "", "text": row["completion"], "by": by})))
        self.add(new)
        return len(new)

    def _rows(self, model: str) -> Iterator[dict[str, Any]]:
        path = self.folder / f"{model}.jsonl" if self.folder else None
        for row in _json_lines(path) if path else ():
            if {"key", "at", "room", "text", "finish_reason"} <= set(row):
                yield row


def _engines(path: Path) -> dict[tuple[Any, Any], str]:
    """Read which engine answered each model and prompt of an evaluation, where one engine and version did."""
    import pyarrow.parquet as pq

    names = ["model", "prompt", "engine", "engine_version"]
    if not path.is_file() or not set(names) <= set(pq.read_schema(path).names):
        return {}
    found: dict[tuple[Any, Any], set[str]] = defaultdict(set)
    for row in pq.read_table(path, columns=names).to_pylist():
        found[row["model"], row["prompt"]].add(f"{row['engine']} {row['engine_version'] or ''}".strip())
    return {asked: by.pop() for asked, by in found.items() if len(by) == 1 and len(next(iter(by)).split()) == 2}


def _append(path: Path, lines: Sequence[str]) -> None:
    """Add lines to a file that several processes may write to."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        # The first line break ends a line that a killed process left half-written.
        file.write(("\n" + "\n".join(lines) + "\n").encode("utf-8", "surrogatepass"))


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file of JSON lines; a line that is empty or cut off by a kill is passed over."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                yield row


def _reply(row: Mapping[str, Any]) -> Reply:
    return Reply(
        key=row["key"],
        text=row["text"],
        finish_reason=row["finish_reason"],
        prompt_tokens=row.get("prompt_tokens") or 0,
        completion_tokens=row.get("completion_tokens", row.get("tokens")) or 0,
        cost=row.get("cost") or 0.0,
        by=row.get("by") or "",
    )


def _versions() -> list[str]:
    """Return the versions of what decides which engine `auto` takes, as far as it is installed."""
    deciding = ("medllm", "torch", "transformers")
    return [f"{name} {one.version}" for name in deciding for one in distributions(name=name)]


class KeptGenerator:
    """A generator that gives what is kept, asks the rest, and keeps each reply before it gives it."""

    def __init__(self, generator: Generator, store: AnswerStore, who: Mapping[str, Answerer]) -> None:
        self.generator, self.store, self.who = generator, store, who
        """`who` has who answers each request, by its key; also those that another generator of this run answers."""
        self.kept = 0
        """How many replies came from the store."""

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
        found = self.store.find(set(keys.values()), asked_at)
        twins: dict[AnswerKey, list[Request]] = defaultdict(list)
        for request in requests:
            twins[keys[request.key]].append(request)
        for key, reply in found.items():
            for request in twins.pop(key):
                self.kept += 1
                yield replace(reply, key=request.key)
        first = {equal[0].key: (key, equal) for key, equal in twins.items()}
        if not first:  # and no model is loaded
            return
        for answered in self.generator.generate([equal[0] for _, equal in first.values()]):
            equal = first[answered.key][1]
            reply = replace(answered, by=engine_of(self.generator))
            self.store.add([(self.key_of(equal[0], reply), reply)])
            for request in equal:
                yield replace(reply, key=request.key)

    def _engine(self, requests: Sequence[Request]) -> str:
        """Return the engine that `auto` takes here: as it was chosen before with these versions, else chosen now."""
        who = {self.who[request.key].model: self.who[request.key] for request in requests}
        if not any(one.auto for one in who.values()):
            return ""
        about = [sorted(who), _versions(), os.environ.get("MEDLLM_VLLM"), os.environ.get("CUDA_VISIBLE_DEVICES")]
        engine = self.store.chosen_engine(_hash(about))
        if not engine and (engine := choose_engine(self.generator)):
            self.store.keep_choice(_hash(about), engine)
        return engine

    def stream(self, requests: Sequence[Request]) -> Iterator[Delta]:
        """Answer all requests, each reply in one piece."""
        for reply in self.generate(requests):
            yield Delta(reply.key, reply.text, reply)
