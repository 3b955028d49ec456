"""Linear layers with several adapters: each row gets its own model's change, in place, to the bit what PEFT gives.

PEFT writes an adapter's change out in float32 and adds it to a copy of the layer's result; on a CPU that took longer
than the layer itself. Here it is added some rows at a time, so that no intermediate result is larger than the
processor's cache; and one pass serves rows of several models. Sums are rounded once: where PEFT serves several models,
or sits on 4-bit weights, it rounds the change before.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import torch
from peft.tuners.lora import Linear, LoraLayer

from medllm.generation.engine.kv_cache import runs

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
