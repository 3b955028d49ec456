"""The maker that runs here: one copy of the base, its adapters beside it, all of them asked in one batch.

PEFT writes an adapter's change out in float32 and adds it to a copy of the layer's result; on a CPU that took longer
than the layer itself. Here it is added some rows at a time, so that no intermediate result is larger than the
processor's cache; and one pass serves rows of several models. Sums are rounded once: where PEFT serves several models,
or sits on 4-bit weights, it rounds the change before.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib.metadata import version
from math import ceil
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import Linear, LoraLayer
from transformers import GenerationConfig, PreTrainedTokenizerBase

from medllm.generation.engine.attention import (
    NAME,
    CacheBudget,
    Prefix,
    Rows,
    Shared,
    joined,
    register,
    roomy_cache,
    runs,
)
from medllm.generation.engine.batching import Batch, BatchLimits, Prompt, PromptReader, pieces
from medllm.generation.engine.decoding import TokenwiseGenerator, switched_to
from medllm.generation.types import BASE
from medllm.recipe.cost import PIECE
from medllm.recipe.servers import LOCAL
from medllm.weights.adapter import Adapter
from medllm.weights.checkpoint import Checkpoint
from medllm.weights.load import Quantization, check_vocabulary, end_tokens, load_adapters, load_base, load_tokenizer

ROWS_AT_ONCE = 128
"""On a CPU: so many tokens' results in float32 fit into the cache."""
Factors = tuple[torch.Tensor, torch.Tensor, float]


@dataclass
class AdapterRows:
    """Which rows of the pass belong to which model; all layers of a model look at the one."""

    runs: list[tuple[str, slice]] = field(default_factory=list)

    def of(self, models: Sequence[str]) -> None:
        """Note the rows' models; one name applies to all rows."""
        self.runs = [(models[0], slice(None))] if len(set(models)) == 1 else runs(models)


class MultiLoraLinear(torch.nn.Module):  # type: ignore[misc]
    """A linear layer, float or 4-bit, and the factors of every adapter that changes it."""

    def __init__(self, layer: Any, asking: AdapterRows) -> None:  # noqa: ANN401  PEFT's layer
        super().__init__()
        self.base_layer = layer.base_layer
        self.asking = asking
        self.factors: dict[str, Factors] = {
            name: (layer.lora_A[name].weight.detach(), layer.lora_B[name].weight.detach(), layer.scaling[name])
            for name in layer.lora_A
        }

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """Rows x tokens x inputs to rows x tokens x outputs."""
        result: torch.Tensor = self.base_layer(given)
        for name, rows in self.asking.runs:
            if name in self.factors:
                _add(
                    result[rows].view(-1, result.shape[-1]),
                    given[rows].reshape(-1, given.shape[-1]),
                    *self.factors[name],
                )
        return result


def _add(result: torch.Tensor, given: torch.Tensor, narrow: torch.Tensor, wide: torch.Tensor, scale: float) -> None:
    """Add `given @ narrow.T @ wide.T * scale` in place: summed in the adapter's numbers, rounded once."""
    pieces = ceil(len(result) / ROWS_AT_ONCE) if result.device.type == "cpu" else 1
    for part, rows in zip(result.chunk(pieces), given.chunk(pieces), strict=True):
        inner = rows.to(narrow.dtype) @ narrow.T
        part.copy_(torch.addmm(part.to(inner.dtype), inner, wide.T, alpha=scale))


def replace_lora_layers(model: torch.nn.Module) -> tuple[AdapterRows, frozenset[str]]:
    """Replace PEFT's plain linear layers by `Adapted`; also return whose adapters are left to PEFT.

    Left to PEFT are embeddings, and every layer with a tensor that an adapter replaces outright.
    """
    asking = AdapterRows()
    for name, layer in list(model.named_modules()):
        if not _is_plain(layer) or ".modules_to_save." in name or ".original_module" in name:
            continue
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, MultiLoraLinear(layer, asking))
    left = [layer for layer in model.modules() if isinstance(layer, LoraLayer)]
    return asking, frozenset(name for layer in left for name in (*layer.lora_A, *layer.lora_embedding_A))


def _is_plain(layer: torch.nn.Module) -> bool:
    return (
        (type(layer) is Linear or type(layer).__name__ == "Linear4bit")
        and isinstance(layer, LoraLayer)
        and not (layer.lora_variant or layer.merged or getattr(layer, "fan_in_fan_out", False))
        and not any(layer.lora_bias.values())
    )


PEFT_BASE = "__base__"
KEPT_PREFIXES = 8
PIECE_ON_CPU = 1024
"""Most tokens of prompts read at once on a CPU: more are no quicker, and only take more memory."""
State = tuple[Any, Rows]
"""Where the rows of a batch go on: transformers' cache of keys and values, and the rows' positions."""


class LocalGenerator(TokenwiseGenerator):
    """Answers with a base and its adapters; the same request gets the same answer in whatever company it is asked."""

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
        register()
        adapters = adapters or {}
        self.tokenizer: PreTrainedTokenizerBase = load_tokenizer(base)
        self.reader = PromptReader(self.tokenizer, templates)
        how: dict[str, Any] = {"dtype": dtype, "quantization": quantization, "device": device}
        model: Any = load_base(base, attn_implementation=NAME, **how)
        check_vocabulary(self.tokenizer, model, base)
        checkpoint = Checkpoint(base)
        self.changed_base = any(Adapter(folder).overwrites(checkpoint) for folder in adapters.values())
        """Whether an adapter wrote over the base, which then cannot be asked; only one that is `alone` may."""
        replacing = frozenset(
            name
            for name, folder in adapters.items()
            if (adapter := Adapter(folder)).switched or adapter.rows or not adapter.is_sum
        )
        if adapters:
            model = load_adapters(model, adapters, base, alone=alone)
        self.asking, left = replace_lora_layers(model)
        self.left_to_peft = left | replacing
        model.get_output_embeddings().register_forward_pre_hook(_laid_out_anew)
        self.model = model.eval()
        self.adapters = tuple(adapters)
        text = model.config.get_text_config()
        self.layers = int(text.num_hidden_layers)
        room = CacheBudget.of(text, self.model, sharing)
        # PEFT cannot ask several models at once where one of them replaces whole tensors.
        self.limits = BatchLimits(batch_size, room.tokens, int(text.max_position_embeddings), not replacing)
        self.ends = end_tokens(self.tokenizer, base)
        self.room = room
        self.piece = PIECE_ON_CPU if room.on_cpu else PIECE
        self.engine = f"{LOCAL} {version('medllm')}"
        self._prefixes: OrderedDict[tuple[tuple[int, ...], str], Prefix] = OrderedDict()

    def logits(self, text: str, model: str = BASE) -> torch.Tensor:
        """The logits at every position of a text, in float32."""
        ids = torch.tensor([self.reader.words.prompt(text)], device=self.model.device)
        positions = torch.arange(ids.shape[1], device=ids.device)[None]
        rows = Rows(positions, torch.ones_like(ids, dtype=torch.bool))
        with torch.inference_mode():
            return self._forward(ids, positions, roomy_cache(self.layers), rows, [model], keep=0)[0].float()

    def forget(self) -> None:
        """Forget what was read and written so far."""
        self._prefixes.clear()
        self.written = 0

    def continue_plainly(self, tokens: Sequence[int], model: str, count: int) -> tuple[list[int], list[torch.Tensor]]:
        """What transformers' own attention and cache make of a prompt: `count` greedy tokens, each with its scores."""
        with self._own_attention(model):
            ids = torch.tensor([list(tokens)], device=self.model.device)
            settings = GenerationConfig(max_new_tokens=count, do_sample=False, pad_token_id=tokens[0])
            settings.output_scores = settings.return_dict_in_generate = True
            made = self.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings)
        return made.sequences[0, len(tokens) :].tolist(), [scores[0] for scores in made.scores]

    def logits_plainly(self, text: str, model: str) -> torch.Tensor:
        """The logits at every position of a text as transformers' own attention gives them, in float32."""
        with self._own_attention(model):
            ids = torch.tensor([self.reader.words.prompt(text)], device=self.model.device)
            logits: torch.Tensor = self.model(input_ids=ids, use_cache=False).logits[0].float()
        return logits

    @contextmanager
    def _own_attention(self, model: str) -> Iterator[None]:
        """One model with the attention of transformers, while this holds."""
        bare = self.model.get_base_model() if self.adapters else self.model
        self.asking.of([model])
        try:
            bare.set_attn_implementation("sdpa" if bare._supports_sdpa else "eager")
            with torch.inference_mode(), self._only(model):
                yield
        finally:
            bare.set_attn_implementation(NAME)

    def _read(self, batch: Batch) -> tuple[torch.Tensor, State]:
        """Follow the prompts, each once however many answers it gets."""
        models = [request.model for request in batch.requests]
        prompts = batch.prompts
        different = list(dict.fromkeys(prompts))
        prefixes = {model: self._prefix(batch.prefix, model) for model in dict.fromkeys(models) if batch.prefix}
        read, logits = [], []
        longest = max(len(tokens) for _, tokens in different)
        for piece in pieces(different, min(self.piece, self.room.tokens_read(longest, len(batch.prefix) + longest))):
            of_piece, cache, rows = self._read_piece(piece, prefixes)
            read.append((cache, rows))
            logits.append(of_piece)
        cache, rows = joined(read, Shared.by([model for model, _ in different], prefixes) if prefixes else None)
        after = torch.cat(logits)
        if len(different) < len(prompts):
            number = {prompt: number for number, prompt in enumerate(different)}
            given = [number[prompt] for prompt in prompts]
            self._take((cache, rows), given, models)
            after = after[given]
        return after, (cache, rows)

    def _next(self, state: State, tokens: list[int], models: list[str]) -> torch.Tensor:
        cache, rows = state
        ids = torch.tensor(tokens, device=rows.positions.device)[:, None]
        positions = rows.positions[:, -1:] + 1
        rows.grow(positions)
        return self._forward(ids, positions, cache, rows, models)[:, -1]

    def _read_piece(self, piece: list[Prompt], prefixes: dict[str, Prefix]) -> tuple[torch.Tensor, Any, Rows]:
        """Follow some prompts of one model, padded on the left, after its prefix."""
        model = piece[0][0]
        width = max(len(tokens) for _, tokens in piece)
        pad = self.tokenizer.pad_token_id
        device = self.model.device
        ids = torch.tensor([[pad] * (width - len(tokens)) + list(tokens) for _, tokens in piece], device=device)
        lengths = torch.tensor([len(tokens) for _, tokens in piece], device=device)
        columns = torch.arange(width, device=device) - (width - lengths)[:, None]
        shared = Shared.by([model] * len(piece), prefixes) if prefixes else None
        before = shared.length if shared is not None else 0
        rows = Rows(before + columns.clamp(min=0), columns >= 0, shared)
        cache = roomy_cache(self.layers)
        logits = self._forward(ids, rows.positions, cache, rows, [model])[:, -1]
        self.read += sum(len(tokens) for _, tokens in piece)
        return logits, cache, rows

    def _take(self, state: State, numbers: list[int], models: list[str]) -> None:
        cache, rows = state
        kept = torch.tensor(numbers, device=rows.positions.device)
        cache.batch_select_indices(kept)
        rows.keep(kept)
        if rows.shared is not None:
            rows.shared = Shared.by(models, dict(zip(rows.shared.models, rows.shared.prefixes, strict=True)))

    def _prefix(self, tokens: tuple[int, ...], model: str) -> Prefix:
        """One model's keys and values for the prefix, computed once and kept."""
        if (tokens, model) not in self._prefixes:
            _, cache, _ = self._read_piece([(model, tokens)], {})
            keys = [layer.keys[0, :, : len(tokens)].clone() for layer in cache.layers]
            values = [layer.values[0, :, : len(tokens)].clone() for layer in cache.layers]
            self._prefixes[(tokens, model)] = Prefix(keys, values)
        prefix = self._prefixes[(tokens, model)]
        while len(self._prefixes) > KEPT_PREFIXES:
            self._prefixes.popitem(last=False)
        return prefix

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
        self.asking.of(models)
        if len(set(models)) > 1 and self.left_to_peft:
            inputs["adapter_names"] = [model if model in self.left_to_peft else PEFT_BASE for model in models]
        with self._only(models[0]) if "adapter_names" not in inputs else nullcontext():
            logits: torch.Tensor = self.model(**inputs).logits
        return logits

    def _only(self, name: str) -> AbstractContextManager[Any]:
        """Switch what PEFT does to one model, for a batch that asks no other."""
        return switched_to(self.model, name) if self.left_to_peft else nullcontext()


def _laid_out_anew(head: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """The last token's hidden state is a strided slice; multiplied as it is, torch copies the head for every row."""
    return (given[0].clone(memory_format=torch.contiguous_format), *given[1:])
