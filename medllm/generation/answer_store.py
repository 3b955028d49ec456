"""The replies that all runs of a machine keep, so that nothing is asked twice.

A reply is kept under who answered and what was asked: the model's content (of a server its name and request options),
the engine that answered, the prompt, and the decoding with its seed. What does not alter the reply is no part of that:
the batch, the number of processes, the server's address. A prompt that did not fit and a reply that was refused are not
kept.
"""

import fcntl
import hashlib
import json
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from medllm.files import write_text
from medllm.generation.types import Reply, Request
from medllm.recipe.servers import AUTO

FOLDER = "MEDLLM_ANSWERS"
"""The environment variable of the store's folder; `none` keeps no store."""
LOCAL = "local"
"""The place of a model that answers on this machine."""
ENGINES = "engines.jsonl"
"""The file of the store that records which engine `auto` took."""
AUDITS = "audits.jsonl"
"""The file of the store that records which worked examples were found clean of which questions."""
KEPT = ("stop", "length", "repetition")
"""How a reply ended that is kept."""
_KEY = re.compile(r"([0-9a-f]{16}):([0-9a-f]{32}):([0-9]+)@(local|[0-9a-f]{8})")


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
        return hash_of_value(self.identity)[:16]

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
        asked: list[Any] = [request.text, request.messages, request.stop, drawn]
        if request.thinks or request.chat_template_kwargs:
            asked += [request.thinks, request.chat_template_kwargs]
        return cls(answerer.model, hash_of_value(asked)[:32], request.max_new_tokens, answerer.place)

    @classmethod
    def read(cls, text: str | None) -> Self | None:
        """Read a key as `str` writes it; None for what is no key.

        >>> AnswerKey.read("../../etc") is None
        True
        """
        match = _KEY.fullmatch(text or "")
        return cls(match[1], match[2], int(match[3]), match[4]) if match else None

    def __str__(self) -> str:
        """Return the form in records: MODEL:PROMPT:MAX_NEW_TOKENS@PLACE."""
        return f"{self.model}:{self.prompt}:{self.max_new_tokens}@{self.place}"


def _serves(reply: Reply, kept_room: int, room: int) -> bool:
    """Return whether a reply that was written with room for `kept_room` tokens is the reply with `room`.

    A reply that ended by itself, or in a loop, is the same with more room.
    """
    return room == kept_room or (
        reply.finish_reason in ("stop", "repetition") and (room > kept_room or 0 < reply.completion_tokens < room)
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
        replies: dict[AnswerKey, Reply] = {}
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
                    replies[key] = reply
                elif key.place not in places and len(places) == 1 and len(asked_at[model]) == 1:
                    moved[key] = reply
            self.add(moved.items())  # from now on the server is known where it is
            replies |= moved
        return replies

    def add(self, replies: Iterable[tuple[AnswerKey, Reply]]) -> None:
        """Write replies down; each is on the disk when this returns."""
        if self.folder is None:
            return
        lines: dict[str, list[str]] = defaultdict(list)
        for key, reply in replies:
            if reply.finish_reason in KEPT:
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

    def clean_audit(self, about: str) -> dict[str, Any] | None:
        """Return what an audit without a finding has recorded under this hash of its texts, questions and code."""
        path = self.folder / AUDITS if self.folder else None
        rows = _json_lines(path) if path else ()
        return next((row["report"] for row in rows if row.get("about") == about and "report" in row), None)

    def keep_clean_audit(self, about: str, report: Mapping[str, Any]) -> None:
        """Write down an audit without a finding, so that an evaluation whose replies are kept does not repeat it."""
        if self.folder is not None:
            _append(self.folder / AUDITS, [json.dumps({"about": about, "report": report}, ensure_ascii=False)])

    def remove(self, keys: Collection[AnswerKey]) -> int:
        """Remove what is kept of these prompts and models, whatever the room; return how many replies."""
        gone: dict[str, set[str]] = defaultdict(set)
        for key in keys:
            gone[key.model].add(key.prompt)
        removed = 0
        for model, prompts in gone.items():
            rows = list(self._rows(model))
            left = [row for row in rows if row["key"] not in prompts]
            removed += len(rows) - len(left)
            if self.folder is not None and len(left) < len(rows):
                lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in left]
                write_text(self.folder / f"{model}.jsonl", "".join(lines), "surrogatepass")
        return removed

    def restore(self, folder: Path) -> int:
        """Take over the replies in the records of an evaluation or in the samples of preferences; count them."""
        import pyarrow.parquet as pq

        known: dict[str, set[tuple[str, str, int]]] = {}
        new: list[tuple[AnswerKey, Reply]] = []
        names = ["answer_key", "completion", "finish_reason", "prompt_tokens", "tokens", "cost"]
        engines = _engines(folder / "runs" / "runs.parquet")
        for path in [*sorted(folder.glob("records/*.parquet")), *sorted(folder.glob("samples/*.parquet"))]:
            there = set(pq.read_schema(path).names)
            if not set(names) <= there:
                continue
            newer = [name for name in ("model", "prompt", "reasoning", "reasoning_tokens") if name in there]
            for row in pq.read_table(path, columns=[*names, *newer]).to_pylist():
                key = AnswerKey.read(row["answer_key"])
                if key is None or row["finish_reason"] not in KEPT:
                    continue
                if key.model not in known:
                    known[key.model] = {(row["key"], row["at"], row["room"]) for row in self._rows(key.model)}
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


def _reply(row: Mapping[str, Any]) -> Reply:
    return Reply(
        key=row["key"],
        text=row["text"],
        finish_reason=row["finish_reason"],
        prompt_tokens=row.get("prompt_tokens") or 0,
        completion_tokens=row.get("completion_tokens", row.get("tokens")) or 0,
        cost=row.get("cost") or 0.0,
        by=row.get("by") or "",
        reasoning=row.get("reasoning") or "",
        reasoning_tokens=row.get("reasoning_tokens") or 0,
    )


def _engines(path: Path) -> dict[tuple[Any, Any], str]:
    """Read which engine answered each model and prompt of an evaluation, where one engine and version did."""
    import pyarrow.parquet as pq

    names = ["model", "prompt", "engine", "engine_version"]
    if not path.is_file() or not set(names) <= set(pq.read_schema(path).names):
        return {}
    engines: dict[tuple[Any, Any], set[str]] = defaultdict(set)
    for row in pq.read_table(path, columns=names).to_pylist():
        engines[row["model"], row["prompt"]].add(f"{row['engine']} {row['engine_version'] or ''}".strip())
    return {asked: by.pop() for asked, by in engines.items() if len(by) == 1 and len(next(iter(by)).split()) == 2}


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


def hash_of_value(value: object) -> str:
    """Return the sha256 of a value as JSON, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
