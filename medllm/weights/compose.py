"""Two adapters trained one above the other, written as the one adapter that does the same."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from medllm.weights.adapter import Adapter


def concatenate(adapters: list[Adapter], out: Path) -> None:
    """Lay the factors side by side: the product of the wide factors is the sum of the products.

    Each adapter's scale is multiplied into its B factor, so the new one acts with scale 1 whatever scales, ranks and
    layers the given ones had. Tensors that an adapter replaces outright (modules_to_save) are those of the last that
    has them; PEFT's own `add_weighted_adapter` drops them without a word.
    """
    tensors: dict[str, torch.Tensor] = {}
    ranks: dict[str, int] = {}
    for adapter in adapters:
        with safe_open(str(adapter.path), "pt") as file:
            for module, (narrow, wide) in adapter.modules.items():
                a = file.get_tensor(narrow.name).float()
                b = file.get_tensor(wide.name).float() * adapter.scale(module)
                if narrow.name in tensors:
                    a, b = torch.cat([tensors[narrow.name], a]), torch.cat([tensors[wide.name], b], 1)
                tensors[narrow.name], tensors[wide.name] = a, b
                ranks[module] = a.shape[0]
            for tensor in adapter.replaced.values():
                tensors[tensor.name] = file.get_tensor(tensor.name)
    out.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, str(out / "adapter_model.safetensors"))
    config = _config(adapters, ranks)
    (out / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")


def _config(adapters: list[Adapter], ranks: dict[str, int]) -> dict[str, Any]:
    """One rank for most modules and a pattern for each other; alpha equals rank everywhere, which is scale 1."""
    usual = Counter(ranks.values()).most_common(1)[0][0]
    patterns = {re.escape(module): rank for module, rank in ranks.items() if rank != usual}
    saved = sorted({module for adapter in adapters for module in adapter.config.get("modules_to_save") or ()})
    return {
        **adapters[-1].config,
        "r": usual,
        "lora_alpha": usual,
        "use_rslora": False,
        "rank_pattern": patterns,
        "alpha_pattern": patterns,
        "target_modules": sorted({module.rsplit(".", 1)[-1] for module in ranks}),
        "modules_to_save": saved or None,
        "inference_mode": True,
    }
