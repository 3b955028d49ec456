"""Reads texts with a model of which one block at a time is in memory: for a certificate where the whole does not fit.

All texts go through a block before the next is read from the disk, so the weights are read once. Nothing is answered:
that would take a pass over the disk for every token.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from accelerate.utils import set_module_tensor_to_device
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM

from medllm.recipe.hardware import PROVEN
from medllm.weights.adapter import Adapter
from medllm.weights.checkpoint import Checkpoint
from medllm.weights.load import TextTokens, default_device, load_tokenizer, release
from medllm.weights.resources import WIDTH

Call = tuple[tuple[Any, ...], dict[str, Any]]


def can_stream(base: Checkpoint, adapter: Adapter) -> bool:
    """Whether a model is of blocks that can be read one by one, and an adapter only adds products inside them.

    Others are applied to whole models: they may scale their logits, or hand something on between their blocks.
    """
    inside = all(".layers." in module for module in adapter.modules)
    added = not (adapter.replaced or adapter.rows or adapter.biases)
    return inside and added and adapter.is_sum and base.config.get("model_type") in PROVEN


def streamed_bytes(base: Checkpoint, dtype: str) -> float:
    """Memory for the largest block, or for the embedding or head, in bytes."""
    parts: dict[str, int] = {}
    for name, tensor in base.tensors.items():
        at = name.find(".layers.")
        part = name[: name.find(".", at + len(".layers."))] if at >= 0 else name
        count = 1
        for size in tensor.shape:
            count *= size
        parts[part] = parts.get(part, 0) + count
    return max(parts.values()) * WIDTH[dtype]


class BlockwiseModel:
    """One model under measurement, base and adapter or a whole model, of which a block at a time is loaded."""

    speaks = False
    beside_its_base = False

    def __init__(self, base: Path, adapter: Path | None = None, *, dtype: str) -> None:
        self.base = Checkpoint(base)
        self.adapter = Adapter(adapter) if adapter is not None else None
        self.kind = getattr(torch, dtype)
        self.device = default_device()

    def release(self) -> None:
        """Give back what is left."""
        release()

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def read(self, texts: Sequence[str]) -> Iterator[torch.Tensor]:
        """The logits at every position of each text, in float32: positions x vocabulary, in the order of the texts."""
        words = TextTokens(load_tokenizer(self.base.folder))
        config = AutoConfig.from_pretrained(self.base.folder, trust_remote_code=False)
        with init_empty_weights(include_buffers=False):
            model = AutoModelForCausalLM.from_config(config, dtype=self.kind, attn_implementation="sdpa").eval()
        for module in model.modules():
            for name, buffer in module.named_buffers(recurse=False):
                module.register_buffer(name, buffer.to(self.device), persistent=False)
        paths = {module: path for path, module in model.named_modules()}
        decoder, head = model.get_decoder(), model.get_output_embeddings()
        self._fill(model.get_input_embeddings(), paths[model.get_input_embeddings()])
        calls = [self._calls(model, decoder, words.prompt(text)) for text in texts]
        model.get_input_embeddings().to("meta")
        hidden = [of_text[0][0][0] for of_text in calls]
        for number, block in enumerate(decoder.layers):
            self._fill(block, paths[block])
            handles = self._lay_on(block, paths[block])
            for at, of_text in enumerate(calls):
                output = block(hidden[at], *of_text[number][0][1:], **of_text[number][1])
                hidden[at] = output[0] if isinstance(output, tuple) else output
            for handle in handles:
                handle.remove()
            block.to("meta")
        self._fill(decoder.norm, paths[decoder.norm])
        self._fill(head, paths[head])
        softcap = getattr(config.get_text_config(), "final_logit_softcapping", None)
        for state in hidden:
            logits = head(decoder.norm(state))[0].float()
            yield logits if softcap is None else torch.tanh(logits / softcap) * softcap

    def _calls(self, model: Any, decoder: Any, tokens: list[int]) -> list[Call]:  # noqa: ANN401
        """What each block would be called with: masks and positions, as the model itself makes them for a text."""
        calls: list[Call] = []

        def note(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            calls.append((args, kwargs))
            return args[0]

        real: list[Callable[..., Any]] = [block.forward for block in decoder.layers]
        norm = decoder.norm.forward
        try:
            for block in decoder.layers:
                block.forward = note
            decoder.norm.forward = lambda given: given
            decoder(input_ids=torch.tensor([tokens], device=self.device), use_cache=False)
        finally:
            decoder.norm.forward = norm
            for block, forward in zip(decoder.layers, real, strict=True):
                block.forward = forward
        return calls

    def _fill(self, module: Any, path: str) -> None:  # noqa: ANN401
        """Read the weights of one part of the model; a tied head is the embedding."""
        for name, _ in list(module.named_parameters()):
            stored = self.base.stored(f"{path}.{name}") or self.base.embedding
            assert stored is not None
            with safe_open(str(self.base.folder / self.base.tensors[stored].shard), "pt") as file:
                value = file.get_tensor(stored).to(self.kind)
            set_module_tensor_to_device(module, name, self.device, value=value)

    def _lay_on(self, block: Any, path: str) -> list[Any]:  # noqa: ANN401
        """Add the adapter's products to the results of a block's layers, as PEFT does while an adapter is laid on."""
        if self.adapter is None:
            return []
        handles = []
        with safe_open(str(self.adapter.path), "pt") as file:
            for module, (narrow, wide) in self.adapter.modules.items():
                inner = module.removeprefix(f"{path}.")
                if inner == module:
                    continue
                factors = [file.get_tensor(tensor.name).float().to(self.device) for tensor in (narrow, wide)]
                added = _adding(factors[0], factors[1], self.adapter.scale(module))
                handles.append(block.get_submodule(inner).register_forward_hook(added))
        return handles


def _adding(narrow: torch.Tensor, wide: torch.Tensor, scale: float) -> Callable[..., torch.Tensor]:
    def add(layer: Any, given: tuple[torch.Tensor, ...], result: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
        return (result + (given[0].float() @ narrow.T @ wide.T) * scale).to(result.dtype)

    return add
