"""Requests and replies of a generator, the same for every backend."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Literal, Protocol

from medllm.errors import ModelError
from medllm.exam.record import PromptStyle

Message = dict[str, str]
FinishReason = Literal["stop", "length", "repetition", "too_long", "refused"]
"""Why a reply ended: by itself, by its token budget, in a loop, unasked as too long, or declined."""
BASE = "base"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One completion wanted from one model."""

    key: str
    """The asker's name for it: unique in a run, by which an answer is found again."""
    model: str = BASE
    """`base`, the name of an adapter, or the name under which a server knows the model."""
    text: str
    """The prompt, for models that complete text."""
    messages: tuple[Message, ...] = ()
    """The same prompt as a conversation, for models that are asked by chat."""
    style: PromptStyle = "plain"
    """What is asked for; with `think` the model thinks before its reply, as far as its chat template can switch it."""
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Further values of the chat template, as `reasoning_effort`."""
    shared: int = 0
    """How many characters at the start (worked examples) other requests have in common with this one."""
    max_new_tokens: int = 256
    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 1.0
    seed: int = 0
    """Decides a sampled answer, whatever else is asked in the same breath."""
    stop: tuple[str, ...] = ()
    """The answer ends before the first of these; in thinking they mean nothing."""

    @property
    def thinks(self) -> bool:
        """Whether the model is asked to think before its reply."""
        return self.style == "think"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One completion of a request, with its tokens counted."""

    key: str
    text: str
    """The reply; of a model that is asked by chat without its thinking, and empty where it ended in thinking."""
    finish_reason: FinishReason
    """`stop` (an end mark or a stop string), `length` (no room left), `too_long` (the prompt did not fit), `refused`
    (by the server, for its content)."""
    prompt_tokens: int
    completion_tokens: int
    cost: float = 0.0
    """US dollars, where the maker charges."""
    tokens: tuple[int, ...] = field(default=(), repr=False)
    """The completion's tokens, where the maker knows them; those of the thinking included."""
    reasoning: str = ""
    """What the model thought before its reply."""
    reasoning_tokens: int = 0
    """How many of `completion_tokens` it thought, where the maker counts them."""
    by: str = ""
    """The engine that wrote it and its version, as `local 0.1.0`; empty for a server that somebody else runs."""


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of a reply while it is being written; the last one carries the whole reply, or why there is none."""

    key: str
    text: str
    """Empty in the last piece, and in a piece that only shows that the request still waits."""
    reply: Reply | None = None
    reasoning: str = ""
    """A piece of the thinking before the reply."""
    error: Exception | None = None
    """What this request failed with; other requests of the same stream go on."""


def shared_length(texts: Sequence[str]) -> int:
    """How many characters all texts begin with.

    >>> shared_length(["Question: a", "Question: b"])
    10
    """
    first, last = min(texts), max(texts)
    return next((at for at, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))


class NoReplyError(ModelError):
    """A server that cannot be reached, or that answers with an error (then `status` is its HTTP status)."""

    def __init__(self, code: str, text: str, status: int | None = None) -> None:
        super().__init__(code, text)
        self.status = status


class Generator(Protocol):
    """What answers requests: a model here or a server.

    One that counts its tokens as it works has `read` and `written`; an engine has its name and version as `engine`.
    """

    def generate(self, requests: Sequence[Request]) -> Iterator[Reply]:
        """Answer every request once, in the order in which answers become ready."""
        ...

    def stream(self, requests: Sequence[Request]) -> Iterator[Delta]:
        """Answer all requests at the same time, piece by piece."""
        ...


def tokens_written(generator: object) -> int:
    """Return how many tokens a generator has written so far; 0 for one that does not count before a reply is whole."""
    return int(getattr(generator, "written", 0))


def tokens_read(generator: object) -> int:
    """Return how many tokens of prompts a generator has read so far; 0 for one that does not count them."""
    return int(getattr(generator, "read", 0))


def engine_of(generator: object) -> str:
    """Return name and version of the engine that answers; empty while it is not known, and for another's server."""
    return getattr(generator, "engine", None) or ""


def choose_engine(generator: object) -> str:
    """Have a generator that chooses its engine by itself (`auto`) choose now: it loads the model, if it must."""
    choose: Callable[[], str] | None = getattr(generator, "choose", None)
    return choose() if choose else engine_of(generator)


def release_model(generator: object) -> None:
    """Give back the memory of a model that is here; a server that somebody else runs keeps its own."""
    give_back: Callable[[], None] | None = getattr(generator, "release", None)
    if give_back is not None:
        give_back()


def take_turn(
    turn: Lock, stream: Callable[[Sequence[Request]], Iterator[Delta]], requests: Sequence[Request]
) -> Iterator[Delta]:
    """Stream while holding the lock; while it is held elsewhere, yield an empty piece per request each second."""
    waits = [Delta(request.key, "") for request in requests]
    while not turn.acquire(timeout=1.0):
        yield from waits
    try:
        yield from waits  # who has stopped reading meanwhile closes the stream here, before any model works
        yield from stream(requests)
    finally:
        turn.release()
