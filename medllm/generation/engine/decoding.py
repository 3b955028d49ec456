"""How replies are written token by token: the next token chosen, the stops watched, the text given out as it grows."""

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from transformers import PreTrainedTokenizerBase

from medllm.errors import ModelError, memory_is_full
from medllm.generation.engine.batching import Batch, BatchLimits, PromptReader, plan, refuse_strangers, too_long
from medllm.generation.types import BASE, Delta, FinishReason, Reply, Request
from medllm.weights.chat_template import ChatTemplate

THINKING_STEP = 16
"""Tokens between two looks at what is written while nothing of the answer is there: each look reads all of it."""
TAIL = 48
"""How many of the last tokens are looked at for a stop string."""
BROKEN = "�"
THINNED = 0.75
"""A batch is made smaller once so many of its rows are still being written, or fewer."""
LOOP_TOKENS, LOOP_PATTERN = 256, 64
"""A reply is in a loop when so many of its last tokens repeat one pattern of at most so many: four times or more."""
LOOP_STEP = 16
"""Tokens between two looks for a loop."""
LIKELIEST = 1024
"""A draw puts only so many in order, if it falls among them: sorting the vocabulary took longer than the model."""


@dataclass
class Decoder:
    """The state of one answer."""

    request: Request
    prompt_tokens: int
    tokenizer: PreTrainedTokenizerBase
    ends: frozenset[int]
    chat: ChatTemplate | None = None
    """The template by which the model was asked: it sets thinking and reply apart."""
    tokens: list[int] = field(default_factory=list)
    finished: FinishReason | None = None
    given: int = 0
    thought: int = 0
    """How many characters of the thinking were given out."""
    _draw: random.Random = field(init=False)
    _opened: bool = field(init=False)

    def __post_init__(self) -> None:
        self._draw = random.Random(self.request.seed)
        values = self.request.chat_template_kwargs
        self._opened = self.chat is not None and self.chat.opens_thinking(self.request.thinks, values)

    @classmethod
    def begin(cls, reader: PromptReader, request: Request, prompt_tokens: int, ends: frozenset[int]) -> Self:
        """Begin the reply to a request; `ends` are the tokens at which the model's replies are over."""
        chat = reader.chat(request)
        known = ends if chat is None else ends | chat.ends
        return cls(request, prompt_tokens, reader.tokenizer, known, chat)

    def uniform(self) -> float:
        """Draw the number that decides the next token; it depends on the request's seed alone."""
        return self._draw.random()

    def take(self, token: int) -> None:
        """Note the next token and whether it ends the answer; a stop string within the thinking ends nothing."""
        if token in self.ends:
            self.finished = "stop"
            return
        self.tokens.append(token)
        if self.request.stop:
            tail = self.tokenizer.decode(self.tokens[-TAIL:], skip_special_tokens=True)
            if any(stop in tail for stop in self.request.stop) and (self.chat is None or self._stopped()):
                self.finished = "stop"
                return
        if len(self.tokens) >= self.request.max_new_tokens:
            self.finished = "length"
        elif len(self.tokens) % LOOP_STEP == 0 and ends_in_token_loop(self.tokens):
            self.finished = "repetition"

    def _stopped(self) -> bool:
        visible = self._split()[1] or ""
        return any(stop in visible for stop in self.request.stop)

    def _split(self) -> tuple[str, str | None]:
        """The thinking so far, and the answer so far with what may follow it; None while there is none."""
        if self.chat is None:
            return "", self.tokenizer.decode(self.tokens, skip_special_tokens=True)
        written = self.tokenizer.decode(self.tokens, skip_special_tokens=False)
        return self.chat.split(written, opened=self._opened)

    def _parts(self) -> tuple[str, str]:
        """The thinking so far, and the answer so far, up to the first stop string."""
        thought, visible = self._split()
        text = (visible or "").lstrip() if thought else visible or ""
        ends = [at for stop in self.request.stop if (at := text.find(stop)) >= 0]
        return thought, text[: min(ends)] if ends else text

    def news(self) -> Delta | None:
        """What is new and certain: no half character, nothing that may turn out to begin a stop string."""
        if self.chat is not None and self.finished is None and not self.given and len(self.tokens) % THINKING_STEP:
            return None
        thought, text = self._parts()
        if self.finished is None:
            thought, text = thought.rstrip(BROKEN), text.rstrip(BROKEN)
            held = max((_overlap(text, stop) for stop in self.request.stop), default=0)
            text = text[: len(text) - held]
        new = Delta(self.request.key, text[self.given :], reasoning=thought[self.thought :])
        self.given, self.thought = max(self.given, len(text)), max(self.thought, len(thought))
        return new if new.text or new.reasoning else None

    def last(self, *, streamed: bool) -> Delta:
        """The whole answer, once it is written, with what a stream has not given out of it yet."""
        new = self.news() if streamed else None
        return Delta(self.request.key, new.text if new else "", self.reply(), new.reasoning if new else "")

    def reply(self) -> Reply:
        """The whole answer, once it is written."""
        thought, text = self._parts()
        return Reply(
            key=self.request.key,
            text=text,
            finish_reason=self.finished or "length",
            prompt_tokens=self.prompt_tokens,
            completion_tokens=len(self.tokens),
            tokens=tuple(self.tokens),
            reasoning=thought,
            reasoning_tokens=self._tokens_before() if thought else 0,
        )

    def _tokens_before(self) -> int:
        """Count the tokens before the answer: the most after which it is still whole."""
        visible = self._split()[1]
        if not visible:
            return len(self.tokens)
        low, high = 0, len(self.tokens)
        while low < high - 1:
            middle = (low + high) // 2
            rest = self.tokenizer.decode(self.tokens[middle:], skip_special_tokens=True)
            low, high = (middle, high) if len(rest) >= len(visible) else (low, middle)
        return low


def ends_in_token_loop(tokens: Sequence[int]) -> bool:
    """Return whether the last 256 tokens are one pattern of at most 64 tokens, again and again.

    vLLM calls this repetition detection. A greedy reply does not leave such a loop, so its answer is known.

    >>> ends_in_token_loop([5, 6, 7] * 100), ends_in_token_loop([5, 6, 7] * 80), ends_in_token_loop(range(300))
    (True, False, False)
    """
    tail = list(tokens[-LOOP_TOKENS:])
    if len(tail) < LOOP_TOKENS:
        return False
    return any(tail[size:] == tail[:-size] for size in range(1, LOOP_PATTERN + 1))


def _overlap(text: str, stop: str) -> int:
    """How much of the end of a text could be the beginning of a stop string."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)


def next_tokens(logits: torch.Tensor, writings: list[Decoder]) -> list[int]:
    """The next token of each row: the likeliest, or one drawn by the row's own number."""
    # On a CPU `max` finds the first of the largest four times as quickly as `argmax`, in bfloat16.
    chosen: list[int] = logits.max(-1).indices.tolist()
    for row, writing in enumerate(writings):
        request = writing.request
        if request.temperature > 0 and writing.finished is None:
            chosen[row] = _sample_token(logits[row], request.temperature, request.top_p, writing.uniform())
    return chosen


def _sample_token(logits: torch.Tensor, temperature: float, top_p: float, number: float) -> int:
    """Invert the distribution at `number`, most likely tokens first; the tail beyond top_p is cut."""
    likely = (logits.float() / temperature).softmax(-1)
    for count in (LIKELIEST, len(likely)):
        tokens = _likeliest(likely, count)
        mass = likely[tokens].double().cumsum(-1)
        if len(tokens) == len(likely) or (mass[-1] > number if top_p == 1 else mass[-1] >= top_p):
            break
    limit = torch.tensor(top_p, dtype=mass.dtype, device=mass.device)
    kept = min(int(torch.searchsorted(mass, limit).item()) + 1, len(mass))
    drawn = number if top_p == 1 else float(mass[kept - 1]) * number
    at = int(torch.searchsorted(mass, torch.tensor(drawn, dtype=mass.dtype, device=mass.device), right=True).item())
    return int(tokens[min(at, kept - 1)].item())


def _likeliest(likely: torch.Tensor, count: int) -> torch.Tensor:
    """The likeliest tokens in falling order, of equals the lower number first; equals of the last are among them."""
    if count >= len(likely):
        return likely.sort(descending=True, stable=True).indices
    tokens = (likely >= likely.topk(count).values[-1]).nonzero().flatten()
    return tokens[likely[tokens].sort(descending=True, stable=True).indices]


def switched_to(model: Any, name: str) -> AbstractContextManager[Any]:  # noqa: ANN401  a PeftModel
    """Switch a model with PEFT's adapters to one of them, or to its base while the context lasts."""
    if name == BASE:
        off: AbstractContextManager[Any] = model.disable_adapter()
        return off
    model.set_adapter(name, inference_mode=True)
    return nullcontext()


class BatchedGenerator(ABC):
    """A model here: it plans what is asked, and answers one batch after the other."""

    tokenizer: PreTrainedTokenizerBase
    reader: PromptReader
    adapters: tuple[str, ...]
    limits: BatchLimits
    model: Any
    engine: str
    """Its name and version."""
    read = 0
    """Tokens of prompts read so far; those that several prompts share count once where they are computed once."""
    written = 0
    """Tokens of replies written so far."""

    def generate(self, requests: Sequence[Request]) -> Iterator[Reply]:
        """Answer every request once, batch by batch."""
        for delta in self._deltas(requests, streamed=False):
            if delta.reply is not None:
                yield delta.reply

    def stream(self, requests: Sequence[Request]) -> Iterator[Delta]:
        """Answer all requests at the same time, piece by piece."""
        yield from self._deltas(requests, streamed=True)

    def answer(self, batch: Batch, *, streamed: bool = False) -> Iterator[Delta]:
        """Answer one planned batch."""
        try:
            yield from self._answer(batch, streamed=streamed)
        except (RuntimeError, MemoryError) as fault:
            if not memory_is_full(fault):
                raise
            raise ModelError(
                "generation.no-memory",
                f"The memory is full with {len(batch.requests)} requests in a batch. Lower `batch_size` or "
                "`max_new_tokens`, or set `quantization: nf4`, and run again; earlier answers are kept.",
            ) from fault

    @abstractmethod
    def _answer(self, batch: Batch, *, streamed: bool) -> Iterator[Delta]:
        """Write all answers of a batch."""

    def _deltas(self, requests: Sequence[Request], *, streamed: bool) -> Iterator[Delta]:
        refuse_strangers(requests, self.adapters)
        batches, unfit = plan(requests, self.reader, self.limits)
        for reply in too_long(unfit):
            yield Delta(reply.key, "", reply)
        for batch in batches:
            yield from self.answer(batch, streamed=streamed)


class TokenwiseGenerator(BatchedGenerator):
    """A generator that follows the rows of a batch itself, one token after the other."""

    ends: frozenset[int]
    """The tokens at which the model's replies are over."""

    @abstractmethod
    def _read(self, batch: Batch) -> tuple[torch.Tensor, Any]:
        """Follow the prompts: the logits after each (rows x vocabulary), and the state from which the rows go on."""

    @abstractmethod
    def _next(self, state: Any, tokens: list[int], models: list[str]) -> torch.Tensor:  # noqa: ANN401
        """Follow one more token of each row: the logits after it, rows x vocabulary."""

    @abstractmethod
    def _take(self, state: Any, numbers: list[int], models: list[str]) -> None:  # noqa: ANN401
        """Go on with these rows only, or with several copies of them."""

    def _answer(self, batch: Batch, *, streamed: bool) -> Iterator[Delta]:
        """Write all answers of a batch, token by token; rows that are done are taken out."""
        writings = [
            Decoder.begin(self.reader, request, len(batch.prefix) + len(own), self.ends)
            for request, own in zip(batch.requests, batch.tokens, strict=True)
        ]
        with torch.inference_mode():
            logits, state = self._read(batch)
            while True:
                for token, writing in zip(next_tokens(logits, writings), writings, strict=True):
                    if writing.finished is None:
                        self.written += 1
                        writing.take(token)
                        if writing.finished is not None:
                            yield writing.last(streamed=streamed)
                        elif streamed and (news := writing.news()):
                            yield news
                going = [number for number, writing in enumerate(writings) if writing.finished is None]
                if not going:
                    return
                if len(going) <= THINNED * len(writings):
                    writings = [writings[number] for number in going]
                    self._take(state, going, [writing.request.model for writing in writings])
                last = [(writing.tokens or [0])[-1] for writing in writings]
                logits = self._next(state, last, [writing.request.model for writing in writings])
