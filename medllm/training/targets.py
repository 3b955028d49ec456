"""Which layers an adapter sits on: the recipe's names, `all-linear`, and the report of layers that are left."""

from collections import Counter
from typing import Any

import torch

from medllm.errors import TrainingError
from medllm.recipe.settings import Lora
from medllm.recipe.training import ALL_LINEAR


def linear_layers(model: Any) -> list[str]:  # noqa: ANN401  a PreTrainedModel, or a PeftModel
    """The names of all linear layers that work on text, the head left out; under an adapter, as without it."""
    head = model.get_output_embeddings()
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model
    names = []
    for name, module in decoder.named_modules():
        if name.endswith("base_layer") or ".lora_" in name or module is head:
            continue
        layer = getattr(module, "base_layer", module)
        if isinstance(layer, torch.nn.Linear):  # those of bitsandbytes are, too
            names.append(name)
    return names


def target_modules(lora: Lora, model: Any) -> list[str]:  # noqa: ANN401  a PreTrainedModel
    """The names for PEFT. Raises TrainingError for one that no layer of the model has."""
    known = sorted({name.rsplit(".", 1)[-1] for name in linear_layers(model)})
    if ALL_LINEAR in lora.target_modules:
        return known
    everything = [name for name, _ in model.named_modules()]
    for wanted in lora.target_modules:
        if not any(name == wanted or name.endswith(f".{wanted}") for name in everything):
            raise TrainingError(
                "training.unknown-layer",
                f"lora.target_modules: the base has no layer `{wanted}`. Its linear layers: {', '.join(known)}. Name "
                f"some of them, or write `[{ALL_LINEAR}]`.",
            )
    return list(lora.target_modules)


def coverage(model: Any) -> str:  # noqa: ANN401  a PeftModel
    """One sentence: how many linear layers learn, by their names, and which do not."""
    adapted: Counter[str] = Counter()
    left: Counter[str] = Counter()
    base = model.get_base_model()
    modules = dict((base.get_decoder() if hasattr(base, "get_decoder") else base).named_modules())
    for name in linear_layers(base):
        (adapted if hasattr(modules[name], "lora_A") else left)[name.rsplit(".", 1)[-1]] += 1
    text = f"adapters on {adapted.total()} of {adapted.total() + left.total()} linear layers ({_counted(adapted)})"
    return text + (f"; without one: {_counted(left)}" if left else "")


def _counted(names: Counter[str]) -> str:
    return ", ".join(f"{name} x {count}" for name, count in sorted(names.items())) or "none"
