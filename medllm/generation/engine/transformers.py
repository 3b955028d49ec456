"""The engine for a model of any type that transformers loads: plain `generate`, in batches padded on the left."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from medllm.generation.engine.attention import LEAST_TOKENS, CacheBudget
from medllm.generation.engine.batching import Batch, BatchLimits, PromptReader
from medllm.generation.engine.decoding import BatchedGenerator, Decoder, next_tokens, switched_to
from medllm.generation.serving import context_of
from medllm.generation.types import BASE, Delta, Request
from medllm.recipe.servers import TRANSFORMERS
from medllm.weights.adapter import Adapter
from medllm.weights.checkpoint import Checkpoint
from medllm.weights.load import (
    Quantization,
    check_vocabulary,
    default_device,
    end_tokens,
    load_adapters,
    load_base,
    load_tokenizer,
)
from medllm.weights.resources import bytes_in_memory, memory_free

FULL = 0.9
"""A model that takes a larger share of one GPU's free memory is divided over all of them."""


class TransformersGenerator(BatchedGenerator):
    """Answers by `generate` of transformers; stops, draws and counts are those of the local engine."""

    def __init__(  # noqa: PLR0913  each a way to load or to ask
        self,
        base: Path,
        adapters: dict[str, Path] | None = None,
        *,
        dtype: str = "bfloat16",
        quantization: Quantization = "none",
        batch_size: int = 16,
        device: str | None = None,
        alone: bool = False,
        sharing: int = 1,
        templates: Mapping[str, str] | None = None,
    ) -> None:
        self.tokenizer = load_tokenizer(base)
        checkpoint = Checkpoint(base)
        self.reader = PromptReader(self.tokenizer, templates)
        where = device or place_of(base, dtype, quantization)
        model: Any = load_base(base, dtype=dtype, quantization=quantization, device=where)
        check_vocabulary(self.tokenizer, model, base)
        # What a publisher recommends (top_k, repetition_penalty) is no part of a request.
        model.generation_config = GenerationConfig(pad_token_id=self.tokenizer.pad_token_id)
        self.adapters = tuple(adapters or {})
        text = model.config.get_text_config()
        if adapters:
            model = load_adapters(model, adapters, base, alone=alone)
        self.model = model.eval()
        self.changed_base = any(Adapter(folder).overwrites(checkpoint) for folder in (adapters or {}).values())
        self.limits = BatchLimits(
            batch_size, _tokens(text, self.model, sharing), context_of(checkpoint.config), mixed=False
        )
        self.ends = end_tokens(self.tokenizer, base)
        self.engine = f"{TRANSFORMERS} {version('transformers')}"

    def logits(self, text: str, model: str = BASE) -> torch.Tensor:
        """The logits at every position of a text, in float32."""
        ids = torch.tensor([self.reader.words.prompt(text)], device=self.model.device)
        with torch.inference_mode(), self._only(model):
            logits: torch.Tensor = self.model(input_ids=ids, use_cache=False).logits[0].float()
        return logits

    def _deltas(self, requests: Sequence[Request], *, streamed: bool) -> Iterator[Delta]:
        """Answer each prompt as a whole: no row shares its beginning with another, so each counts in full."""
        return super()._deltas([replace(request, shared=0) for request in requests], streamed=streamed)

    def _answer(self, batch: Batch, *, streamed: bool) -> Iterator[Delta]:
        """Write all answers of a batch; the model is that of its first request."""
        rows = [[*batch.prefix, *own] for own in batch.tokens]
        writings = [
            Decoder.begin(self.reader, request, len(row), self.ends)
            for request, row in zip(batch.requests, rows, strict=True)
        ]
        if not streamed:
            self._write(rows, self._writer(writings))
            yield from (writing.last(streamed=False) for writing in writings)
            return
        pieces: SimpleQueue[Delta | Exception | None] = SimpleQueue()
        writer = self._writer(writings, pieces)

        def write() -> None:
            try:
                self._write(rows, writer)
            except Exception as fault:
                pieces.put(fault)
            pieces.put(None)

        thread = Thread(target=write, daemon=True)
        thread.start()
        try:
            while (piece := pieces.get()) is not None:
                if isinstance(piece, Exception):
                    raise piece
                yield piece
        finally:
            writer.closed.set()
            thread.join()

    def _writer(
        self, writings: list[Decoder], pieces: "SimpleQueue[Delta | Exception | None] | None" = None
    ) -> "_Writer":
        """Return the writer of a batch; the tokens that it reads and writes count as this generator's."""

        def count(read: int, written: int) -> None:
            self.read, self.written = self.read + read, self.written + written

        return _Writer(writings, count, pieces)

    def _write(self, rows: list[list[int]], writer: "_Writer") -> None:
        width, pad = max(map(len, rows)), self.tokenizer.pad_token_id
        device = self.model.device
        ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=device)
        real = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
        room = max(writing.request.max_new_tokens for writing in writer.writings)
        with torch.inference_mode(), self._only(writer.writings[0].request.model):
            self.model.generate(
                input_ids=ids,
                attention_mask=real,
                generation_config=GenerationConfig(max_new_tokens=room, do_sample=False, pad_token_id=pad),
                logits_processor=LogitsProcessorList([writer]),
                stopping_criteria=StoppingCriteriaList([_Finished(writer)]),
            )

    def _only(self, name: str) -> AbstractContextManager[Any]:
        """Switch to one model: the base, or an adapter on it."""
        return switched_to(self.model, name) if self.adapters else nullcontext()


class _Writer(LogitsProcessor):  # type: ignore[misc]
    """Chooses the next token of each row as the local engine does, and leaves `generate` no other."""

    def __init__(
        self,
        writings: list[Decoder],
        count: Callable[[int, int], None],
        pieces: "SimpleQueue[Delta | Exception | None] | None" = None,
    ) -> None:
        self.writings, self.count, self.pieces = writings, count, pieces
        self.unread = sum(writing.prompt_tokens for writing in writings)
        self.closed = Event()

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.count(self.unread, sum(writing.finished is None for writing in self.writings))
        self.unread = 0
        chosen = next_tokens(scores, self.writings)
        for token, writing in zip(chosen, self.writings, strict=True):
            if writing.finished is None:
                writing.take(token)
                self._hand_out(writing)
        only = torch.full_like(scores, float("-inf"))
        only[torch.arange(len(chosen)), chosen] = 0.0
        return only

    def _hand_out(self, writing: Decoder) -> None:
        """Give away what is new of a reply, and the reply when it is finished."""
        if self.pieces is None:
            return
        if writing.finished is not None:
            self.pieces.put(writing.last(streamed=True))
        elif news := writing.news():
            self.pieces.put(news)


class _Finished(StoppingCriteria):  # type: ignore[misc]
    """Ends each row when its reply is finished, and all when the reader has left."""

    def __init__(self, writer: _Writer) -> None:
        self.writer = writer

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:  # noqa: ANN401
        closed = self.writer.closed.is_set()
        finished = [closed or writing.finished is not None for writing in self.writer.writings]
        return torch.tensor(finished, device=input_ids.device)


def place_of(base: Path, dtype: str, quantization: Quantization) -> str | None:
    """Where a model is loaded: divided (`auto`) when one GPU is too small for its weights, else on one device."""
    if default_device().type != "cuda":
        return None
    return "auto" if bytes_in_memory(Checkpoint(base), dtype, quantization) > FULL * memory_free() else None


def _tokens(text: Any, model: Any, sharing: int) -> int:  # noqa: ANN401
    """The tokens of a batch: as many as fit the memory, or few where the config does not give the cache's size."""
    try:
        return CacheBudget.of(text, model, sharing).tokens
    except (AttributeError, TypeError, RuntimeError):
        return LEAST_TOKENS
