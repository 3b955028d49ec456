"""Which requests are answered together, and the state of each answer while it grows."""

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from medllm.errors import ModelError
from medllm.generation.types import BASE, Delta, FinishReason, Reply, Request
from medllm.resource_errors import memory_is_full
from medllm.weights.load import TextTokens

PADDING = (32, 0.25)
"""A prompt lacks no more than so many tokens, or so large a share, of the longest in its piece: padding is work too."""


Prompt = tuple[str, tuple[int, ...]]
"""A model, and the tokens that it is to read."""


@dataclass(frozen=True)
class Batch:
    """Requests to answer at once, those of one model next to each other."""

    prefix: tuple[int, ...]
    """The tokens that all prompts begin with."""
    requests: tuple[Request, ...]
    tokens: tuple[tuple[int, ...], ...]
    """For each request, the tokens of its prompt after the prefix."""

    @property
    def prompts(self) -> list[Prompt]:
        """The model and the own tokens of each request."""
        return [(request.model, own) for request, own in zip(self.requests, self.tokens, strict=True)]


@dataclass(frozen=True)
class BatchLimits:
    """How much fits into one batch."""

    prompts: int
    tokens: int
    """Rows times their own tokens and room for answers."""
    context: int
    """The longest text the model can follow."""
    mixed: bool = True
    """Whether one batch may ask several models."""


def plan(
    requests: Sequence[Request],
    tokenizer: PreTrainedTokenizerBase,
    limits: BatchLimits,
    words: TextTokens | None = None,
) -> tuple[list[Batch], list[tuple[Request, int]]]:
    """Batches in order of length, and the requests that do not fit the model, with their lengths in tokens.

    `words` is the reader of the tokenizer, for a caller that plans often and keeps it.
    """
    groups: dict[tuple[str, str], list[tuple[Request, list[int]]]] = {}
    unfit = []
    words = words or TextTokens(tokenizer)
    for request in requests:
        tokens = words.prompt(request.text)
        if len(tokens) + request.max_new_tokens > limits.context:
            unfit.append((request, len(tokens)))
        else:
            key = (request.text[: request.shared], "" if limits.mixed else request.model)
            groups.setdefault(key, []).append((request, tokens))
    batches = [batch for group in groups.values() for batch in _batches(group, limits)]
    return batches, unfit


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
    words: TextTokens
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
        batches, unfit = plan(requests, self.tokenizer, self.limits, self.words)
        for reply in too_long(unfit):
            yield Delta(reply.key, "", reply)
        for batch in batches:
            yield from self.answer(batch, streamed=streamed)


def too_long(unfit: Sequence[tuple[Request, int]]) -> list[Reply]:
    """The replies to prompts that do not fit the model."""
    return [
        Reply(key=request.key, text="", finish_reason="too_long", prompt_tokens=length, completion_tokens=0)
        for request, length in unfit
    ]


def refuse_strangers(requests: Sequence[Request], adapters: Sequence[str]) -> None:
    """Refuse a request for a model that is not here."""
    unknown = sorted({request.model for request in requests} - {BASE, *adapters})
    if unknown:
        raise ModelError(
            "generation.unknown-model", f"Unknown model `{unknown[0]}`. There is: {', '.join((BASE, *adapters))}."
        )


def _batches(group: list[tuple[Request, list[int]]], limits: BatchLimits) -> list[Batch]:
    prefix = _common([tokens for request, tokens in group if request.shared]) if group[0][0].shared else ()
    by_prompt: dict[tuple[int, ...], list[Request]] = {}
    for request, tokens in group:
        by_prompt.setdefault(tuple(tokens[len(prefix) :]), []).append(request)
    batches: list[Batch] = []
    taken: list[tuple[Request, tuple[int, ...]]] = []
    prompts = widest = 0
    for own in sorted(by_prompt, key=len, reverse=True):
        more = [(request, own) for request in by_prompt[own]]
        width = max(widest, *(len(own) + request.max_new_tokens for request, _ in more))
        if taken and (prompts == limits.prompts or (len(taken) + len(more)) * width > limits.tokens):
            batches.append(_batch(prefix, taken))
            taken, prompts, width = [], 0, max(len(own) + request.max_new_tokens for request, _ in more)
        taken = [*taken, *more]
        prompts, widest = prompts + 1, width
    return [*batches, _batch(prefix, taken)]


def pieces(prompts: Sequence[Prompt], most: int) -> list[list[Prompt]]:
    """Prompts that are read together: those of one model, of like lengths, and `most` tokens if they are several."""
    found: list[list[Prompt]] = []
    for prompt in prompts:
        last = found[-1] if found else None
        if (
            last is None
            or prompt[0] != last[0][0]
            or (len(last) + 1) * len(last[0][1]) > most
            or _too_short(prompt[1], last[0][1])
        ):
            found.append([prompt])
        else:
            last.append(prompt)
    return found


def _too_short(own: tuple[int, ...], longest: tuple[int, ...]) -> bool:
    least, share = PADDING
    return len(longest) - len(own) > max(least, share * len(longest))


def _batch(prefix: tuple[int, ...], taken: list[tuple[Request, tuple[int, ...]]]) -> Batch:
    requests, tokens = zip(*sorted(taken, key=lambda one: one[0].model), strict=True)
    return Batch(prefix, requests, tokens)


def _common(lists: list[list[int]]) -> tuple[int, ...]:
    """The tokens that all begin with; at least one is left to each, from which its answer starts."""
    first, last = min(lists), max(lists)
    shortest = min(map(len, lists)) - 1
    length = next((at for at in range(shortest) if first[at] != last[at]), shortest)
    return tuple(first[:length])


TAIL = 48
"""How many of the last tokens are looked at for a stop string."""
BROKEN = "�"
LIKELIEST = 1024
"""A draw puts only so many in order, if it falls among them: sorting the vocabulary took longer than the model."""


@dataclass
class Decoder:
    """The state of one answer."""

    request: Request
    prompt_tokens: int
    tokenizer: PreTrainedTokenizerBase
    ends: frozenset[int]
    tokens: list[int] = field(default_factory=list)
    finished: FinishReason | None = None
    given: int = 0
    _draw: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._draw = random.Random(self.request.seed)

    def uniform(self) -> float:
        """Draw the number that decides the next token; it depends on the request's seed alone."""
        return self._draw.random()

    def take(self, token: int) -> None:
        """Note the next token and whether it ends the answer."""
        if token in self.ends:
            self.finished = "stop"
            return
        self.tokens.append(token)
        if self.request.stop:
            tail = self.tokenizer.decode(self.tokens[-TAIL:], skip_special_tokens=True)
            if any(stop in tail for stop in self.request.stop):
                self.finished = "stop"
                return
        if len(self.tokens) >= self.request.max_new_tokens:
            self.finished = "length"

    @property
    def text(self) -> str:
        """The answer so far, up to the first stop string."""
        text: str = self.tokenizer.decode(self.tokens, skip_special_tokens=True)
        ends = [at for stop in self.request.stop if (at := text.find(stop)) >= 0]
        return text[: min(ends)] if ends else text

    def piece(self) -> str:
        """What is new and certain: no half character, nothing that may turn out to begin a stop string."""
        text = self.text
        if self.finished is None:
            text = text.rstrip(BROKEN)
            held = max((_overlap(text, stop) for stop in self.request.stop), default=0)
            text = text[: len(text) - held]
        new = text[self.given :]
        self.given = max(self.given, len(text))
        return new

    def reply(self) -> Reply:
        """The whole answer, once it is written."""
        return Reply(
            key=self.request.key,
            text=self.text,
            finish_reason=self.finished or "length",
            prompt_tokens=self.prompt_tokens,
            completion_tokens=len(self.tokens),
            tokens=tuple(self.tokens),
        )


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
    found = (likely >= likely.topk(count).values[-1]).nonzero().flatten()
    return found[likely[found].sort(descending=True, stable=True).indices]
