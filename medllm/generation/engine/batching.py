"""Which requests are answered together: same worked examples, like lengths, all models of a question side by side."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from medllm.errors import ModelError
from medllm.generation.types import BASE, Reply, Request
from medllm.weights.chat_template import ChatTemplate
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


class PromptReader:
    """Reads requests into tokens: by the chat template of a model that has one here, else as a text that goes on.

    Args:
        tokenizer: The base's tokenizer.
        templates: The chat template of each model that is asked by chat, by the names of requests.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, templates: Mapping[str, str] | None = None) -> None:
        self.tokenizer = tokenizer
        self.words = TextTokens(tokenizer)
        names: dict[str, list[str]] = {}
        for model, template in (templates or {}).items():
            names.setdefault(template, []).append(model)
        self._chats: dict[str, ChatTemplate] = {}
        for template, models in names.items():
            self._chats |= dict.fromkeys(models, ChatTemplate(tokenizer, template, ", ".join(models)))

    @property
    def ends(self) -> frozenset[int]:
        """The tokens with which the templates end a reply."""
        return frozenset[int]().union(*(chat.ends for chat in self._chats.values()))

    def chat(self, request: Request) -> ChatTemplate | None:
        """Return the template by which a request is asked; None for a text that goes on."""
        return self._chats.get(request.model) if request.messages else None

    def tokens(self, request: Request) -> list[int]:
        """Return the tokens of a request's prompt."""
        chat = self.chat(request)
        if chat is None:
            return self.words.prompt(request.text)
        return chat.prompt(request.messages, thinks=request.thinks, values=request.chat_template_kwargs)

    def shared(self, request: Request) -> str:
        """Return what a request has in common with others, as a name: the same names begin with the same tokens."""
        chat = self.chat(request)
        if chat is None or not request.shared:
            return request.text[: request.shared]
        return json.dumps([chat.text, request.thinks, request.messages[:-1]])


def plan(
    requests: Sequence[Request], reader: PromptReader, limits: BatchLimits
) -> tuple[list[Batch], list[tuple[Request, int]]]:
    """Batches in order of length, and the requests that do not fit the model, with their lengths in tokens."""
    groups: dict[tuple[str, str], list[tuple[Request, list[int]]]] = {}
    unfit = []
    for request in requests:
        tokens = reader.tokens(request)
        if len(tokens) + request.max_new_tokens > limits.context:
            unfit.append((request, len(tokens)))
        else:
            key = (reader.shared(request), "" if limits.mixed else request.model)
            groups.setdefault(key, []).append((request, tokens))
    batches = [batch for group in groups.values() for batch in _batches(group, limits)]
    return batches, unfit


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
    parts: list[list[Prompt]] = []
    for prompt in prompts:
        last = parts[-1] if parts else None
        if (
            last is None
            or prompt[0] != last[0][0]
            or (len(last) + 1) * len(last[0][1]) > most
            or _too_short(prompt[1], last[0][1])
        ):
            parts.append([prompt])
        else:
            last.append(prompt)
    return parts


def _too_short(own: tuple[int, ...], longest: tuple[int, ...]) -> bool:
    least, share = PADDING
    return len(longest) - len(own) > max(least, share * len(longest))


def _batch(prefix: tuple[int, ...], taken: list[tuple[Request, tuple[int, ...]]]) -> Batch:
    requests, tokens = zip(*sorted(taken, key=lambda pair: pair[0].model), strict=True)
    return Batch(prefix, requests, tokens)


def _common(lists: list[list[int]]) -> tuple[int, ...]:
    """The tokens that all begin with; at least one is left to each, from which its answer starts."""
    first, last = min(lists), max(lists)
    shortest = min(map(len, lists)) - 1
    length = next((at for at in range(shortest) if first[at] != last[at]), shortest)
    return tuple(first[:length])
