"""A generator's own state of one answer: the next token chosen, the stops watched, the text given out as it grows."""

import random
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedTokenizerBase

from medllm.generation.types import Delta, FinishReason, Reply, Request
from medllm.weights.chat_template import ChatTemplate

THINKING_STEP = 16
"""Tokens between two looks at what is written while nothing of the answer is there: each look reads all of it."""
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
