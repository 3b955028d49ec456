"""Two adapters trained one above the other, written as the one adapter that does the same."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from medllm.weights.adapter import BIAS, PREFIX, ROWS, Adapter

CHOICES = ("exclude_modules", "layers_to_transform", "layers_pattern")
"""Keys that narrow which modules an adapter sits on."""


def concatenate(adapters: list[Adapter], out: Path) -> None:
    """Lay the factors side by side: the product of the wide factors is the sum of the products.

    Each adapter's scale is multiplied into its B factor, so the new one acts with scale 1 whatever scales, ranks and
    layers the given ones had. Tensors and rows that an adapter replaces outright (modules_to_save,
    trainable_token_indices) are those of the last that has them; PEFT's own `add_weighted_adapter` drops them without
    a word.
    """
    tensors: dict[str, torch.Tensor] = {}
    ranks: dict[str, int] = {}
    rows: dict[str, dict[int, torch.Tensor]] = {}
    for adapter in adapters:
        with safe_open(str(adapter.path), "pt") as file:
            for module, (narrow, wide) in adapter.modules.items():
                a = file.get_tensor(narrow.name).float()
                b = file.get_tensor(wide.name).float() * adapter.scale(module)
                if narrow.name in tensors:
                    a, b = torch.cat([tensors[narrow.name], a]), torch.cat([tensors[wide.name], b], 1)
                tensors[narrow.name], tensors[wide.name] = a, b
                ranks[module] = a.shape[0]
            for module, tensor in adapter.biases.items():
                added = file.get_tensor(tensor.name).float() * adapter.scale(module)
                tensors[tensor.name] = added + tensors[tensor.name] if tensor.name in tensors else added
            for tensor in adapter.replaced.values():
                tensors[tensor.name] = file.get_tensor(tensor.name)
            for module, (tensor, numbers) in adapter.rows.items():
                values = file.get_tensor(tensor.name)
                rows.setdefault(module, {}).update(zip(numbers, values, strict=True))
    for module, values in rows.items():
        tensors[PREFIX + module + ROWS] = torch.stack(list(values.values()))
    out.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, str(out / "adapter_model.safetensors"))
    config = _config(adapters, ranks) | {
        "lora_bias": any(name.endswith(BIAS) for name in tensors),
        "trainable_token_indices": {module: list(values) for module, values in rows.items()} or None,
    }
    (out / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")


def _config(adapters: list[Adapter], ranks: dict[str, int]) -> dict[str, Any]:
    """One rank for most modules and a pattern for each other; alpha equals rank everywhere, which is scale 1."""
    usual = Counter(ranks.values()).most_common(1)[0][0]
    patterns = {re.escape(module): rank for module, rank in ranks.items() if rank != usual}
    saved = sorted({module for adapter in adapters for module in adapter.config.get("modules_to_save") or ()})
    # Names of layers apply to all blocks; where an adapter sits on some of them only, each module is named.
    some = any(isinstance(a.config.get("target_modules"), str) or any(map(a.config.get, CHOICES)) for a in adapters)
    return {
        **adapters[-1].config,
        **dict.fromkeys(CHOICES),
        "r": usual,
        "lora_alpha": usual,
        "use_rslora": False,
        "init_lora_weights": True,
        "ensure_weight_tying": any(adapter.config.get("ensure_weight_tying") for adapter in adapters),
        "rank_pattern": patterns,
        "alpha_pattern": patterns,
        "target_modules": sorted(ranks) if some else sorted({module.rsplit(".", 1)[-1] for module in ranks}),
        "modules_to_save": saved or None,
        "inference_mode": True,
    }
