"""The maker that runs here: one copy of the base, its adapters beside it, all of them asked in one batch."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from medllm.errors import ModelError
from medllm.generation.attention import NAME, register
from medllm.generation.batches import Batch, Limits, plan
from medllm.generation.requests import BASE, Delta, Reply, Request
from medllm.generation.rows import Prefix, Rows, Shared, roomy_cache
from medllm.generation.writing import Writing, choose
from medllm.weights.adapter import Adapter
from medllm.weights.load import Quantization, check_vocabulary, end_marks, load_adapters, load_base, load_tokenizer
from medllm.weights.spent import memory_is_full

PEFT_BASE = "__base__"
KEPT_PREFIXES = 8
TOKENS_AT_ONCE = 65_536
THINNED = 0.75
"""A batch is made smaller once so many of its rows are still being written, or fewer."""


class LocalGenerator:
    """Answers with a base and its adapters; the same request gets the same answer in whatever company it is asked."""

    def __init__(
        self,
        base: Path,
        adapters: dict[str, Path] | None = None,
        *,
        dtype: str = "bfloat16",
        quantization: Quantization = "none",
        batch_size: int = 16,
        device: str | None = None,
    ) -> None:
        register()
        adapters = adapters or {}
        self.tokenizer: PreTrainedTokenizerBase = load_tokenizer(base)
        model: Any = load_base(base, dtype=dtype, quantization=quantization, attention=NAME, device=device)
        check_vocabulary(self.tokenizer, model, base)
        if adapters:
            model = load_adapters(model, adapters, base)
        self.model = model.eval()
        self.adapters = tuple(adapters)
        text = model.config.get_text_config()
        self.layers = int(text.num_hidden_layers)
        # PEFT cannot ask several models at once where one of them replaces whole tensors.
        mixed = not any(Adapter(folder).replaced for folder in adapters.values())
        self.limits = Limits(batch_size, TOKENS_AT_ONCE, int(text.max_position_embeddings), mixed)
        self.ends = frozenset({*end_marks(self.tokenizer), *_as_list(model.generation_config.eos_token_id)})
        self._prefixes: OrderedDict[tuple[tuple[int, ...], str], Prefix] = OrderedDict()

    def generate(self, requests: Sequence[Request]) -> Iterator[Reply]:
        """Answer every request once, batch by batch."""
        for delta in self._deltas(requests, streamed=False):
            if delta.reply is not None:
                yield delta.reply

    def stream(self, requests: Sequence[Request]) -> Iterator[Delta]:
        """Answer all requests at the same time, piece by piece."""
        yield from self._deltas(requests, streamed=True)

    def logits(self, text: str, model: str = BASE) -> torch.Tensor:
        """The logits at every position of a text, in float32."""
        ids = torch.tensor([self.tokenizer(text)["input_ids"]], device=self.model.device)
        positions = torch.arange(ids.shape[1], device=ids.device)[None]
        rows = Rows(positions, torch.ones_like(ids, dtype=torch.bool))
        with torch.inference_mode():
            return self._forward(ids, positions, roomy_cache(self.layers), rows, [model], keep=0)[0].float()

    def _deltas(self, requests: Sequence[Request], *, streamed: bool) -> Iterator[Delta]:
        unknown = sorted({request.model for request in requests} - {BASE, *self.adapters})
        if unknown:
            raise ModelError(f"there is no model `{unknown[0]}` here. There is: {', '.join((BASE, *self.adapters))}.")
        batches, unfit = plan(requests, self.tokenizer, self.limits)
        for request, length in unfit:
            reply = Reply(key=request.key, text="", finish_reason="too_long", prompt_tokens=length, completion_tokens=0)
            yield Delta(request.key, "", reply)
        for batch in batches:
            try:
                yield from self._answer(batch, streamed=streamed)
            except (RuntimeError, MemoryError) as fault:
                if not memory_is_full(fault):
                    raise
                raise ModelError(
                    f"out of memory while {len(batch.asked)} requests were answered at once. Lower `batch_size` or "
                    "`max_new_tokens`, or set `quantization: nf4`; what was answered before need not be asked again."
                ) from fault

    def _answer(self, batch: Batch, *, streamed: bool) -> Iterator[Delta]:
        """Write all answers of a batch, token by token; rows that are done are taken out."""
        writings = [
            Writing(asked.request, len(batch.prefix) + len(asked.tokens), self.tokenizer, self.ends)
            for asked in batch.asked
        ]
        with torch.inference_mode():
            logits, cache, rows = self._read(batch)
            while True:
                for token, writing in zip(choose(logits, writings), writings, strict=True):
                    if writing.finished is None:
                        writing.take(token)
                        if writing.finished is not None:
                            yield Delta(writing.request.key, writing.piece() if streamed else "", writing.reply())
                        elif streamed and (piece := writing.piece()):
                            yield Delta(writing.request.key, piece)
                going = [number for number, writing in enumerate(writings) if writing.finished is None]
                if not going:
                    return
                if len(going) <= THINNED * len(writings):
                    writings = [writings[number] for number in going]
                    self._take(cache, rows, going, [writing.request.model for writing in writings])
                ids = torch.tensor([[(w.tokens or [0])[-1]] for w in writings], device=logits.device)
                positions = rows.positions[:, -1:] + 1
                rows.grow(positions)
                logits = self._forward(ids, positions, cache, rows, [w.request.model for w in writings])[:, -1]

    def _read(self, batch: Batch) -> tuple[torch.Tensor, Any, Rows]:
        """Follow the prompts, each once however many answers it gets: the logits after them, their cache and rows."""
        models = [asked.request.model for asked in batch.asked]
        prompts = list(zip(models, (asked.tokens for asked in batch.asked), strict=True))
        different = list(dict.fromkeys(prompts))
        rows, ids = self._lay_out(batch.prefix, different)
        cache = roomy_cache(self.layers)
        logits = self._forward(ids, rows.positions, cache, rows, [model for model, _ in different])[:, -1]
        if len(different) < len(prompts):
            number = {prompt: number for number, prompt in enumerate(different)}
            given = [number[prompt] for prompt in prompts]
            self._take(cache, rows, given, models)
            logits = logits[given]
        return logits, cache, rows

    def _lay_out(
        self, prefix: tuple[int, ...], prompts: list[tuple[str, tuple[int, ...]]]
    ) -> tuple[Rows, torch.Tensor]:
        """Pad the rows on the left, place them after the prefix, and have the prefix ready for each model."""
        width = max(len(tokens) for _, tokens in prompts)
        pad = self.tokenizer.pad_token_id
        device = self.model.device
        ids = torch.tensor([[pad] * (width - len(tokens)) + list(tokens) for _, tokens in prompts], device=device)
        lengths = torch.tensor([len(tokens) for _, tokens in prompts], device=device)
        columns = torch.arange(width, device=device) - (width - lengths)[:, None]
        rows = Rows(positions=len(prefix) + columns.clamp(min=0), real=columns >= 0)
        if prefix:
            models = [model for model, _ in prompts]
            distinct = list(dict.fromkeys(models))
            rows.shared = Shared(distinct, self._prefix(prefix, distinct), _slices(models), len(prefix))
        return rows, ids

    def _take(self, cache: Any, rows: Rows, numbers: list[int], models: list[str]) -> None:  # noqa: ANN401
        """Go on with these rows only, or with several copies of them."""
        kept = torch.tensor(numbers, device=rows.positions.device)
        cache.batch_select_indices(kept)
        rows.keep(kept)
        if rows.shared is not None:
            named = dict(zip(rows.shared.models, rows.shared.prefixes, strict=True))
            left = list(dict.fromkeys(models))
            rows.shared = Shared(left, [named[model] for model in left], _slices(models), rows.shared.length)

    def _prefix(self, tokens: tuple[int, ...], models: list[str]) -> list[Prefix]:
        """Compute what is missing of the prefix's keys and values, for all models at once, and keep it."""
        missing = [model for model in models if (tokens, model) not in self._prefixes]
        if missing:
            ids = torch.tensor([tokens] * len(missing), device=self.model.device)
            positions = torch.arange(len(tokens), device=ids.device).expand_as(ids)
            cache = roomy_cache(self.layers)
            self._forward(ids, positions, cache, Rows(positions, torch.ones_like(ids, dtype=torch.bool)), missing)
            for number, model in enumerate(missing):
                keys = [layer.keys[number, :, : len(tokens)].clone() for layer in cache.layers]
                values = [layer.values[number, :, : len(tokens)].clone() for layer in cache.layers]
                self._prefixes[(tokens, model)] = Prefix(keys, values)
        found = [self._prefixes[(tokens, model)] for model in models]
        while len(self._prefixes) > KEPT_PREFIXES:
            self._prefixes.popitem(last=False)
        return found

    def _forward(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        cache: Any,  # noqa: ANN401  a transformers Cache
        rows: Rows,
        models: list[str],
        keep: int = 1,
    ) -> torch.Tensor:
        """Logits of the last `keep` tokens of each row; 0 keeps all."""
        inputs: dict[str, Any] = {
            "input_ids": ids,
            "position_ids": positions,
            # Four dimensions are taken as they are: no mask is built that our attention would not look at.
            "attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool, device=ids.device),
            "past_key_values": cache,
            "use_cache": True,
            "logits_to_keep": keep,
            "medllm_rows": rows,
        }
        if len(set(models)) > 1:
            inputs["adapter_names"] = [PEFT_BASE if model == BASE else model for model in models]
        with self._only(models[0]) if "adapter_names" not in inputs else nullcontext():
            logits: torch.Tensor = self.model(**inputs).logits
        return logits

    def _only(self, name: str) -> AbstractContextManager[Any]:
        """Switch to one model, for a batch that asks no other."""
        if not self.adapters:
            return nullcontext()
        if name == BASE:
            off: AbstractContextManager[Any] = self.model.disable_adapter()
            return off
        self.model.set_adapter(name, inference_mode=True)
        return nullcontext()


def _slices(models: list[str]) -> list[slice]:
    """Where each model's rows stand; they stand together."""
    return [slice(models.index(model), models.index(model) + models.count(model)) for model in dict.fromkeys(models)]


def _as_list(value: int | list[int] | None) -> list[int]:
    return [] if value is None else [value] if isinstance(value, int) else list(value)
