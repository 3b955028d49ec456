"""Where a fresh adapter sits: on the layers that work on text, and only on what the base's files hold again."""

import re
from typing import Any

from medllm.errors import ModelError
from medllm.weights.checkpoint import HEAD, Checkpoint


def outside_text(model: Any) -> str | None:  # noqa: ANN401  a PreTrainedModel
    """A regular expression of the modules that do not work on text, for PEFT's `exclude_modules`; None where all do.

    A model that also sees pictures has layers of the same names in its vision tower, which learns nothing from text.
    """
    if model.config.get_text_config() is model.config:
        return None
    decoder = model.get_decoder()
    path = next((name for name, module in model.named_modules() if module is decoder), "")
    return rf"(?!{re.escape(path)}\.|lm_head$).*" if path else None


def refuse_unstored(model: Any, base: Checkpoint) -> None:  # noqa: ANN401  a PeftModel
    """Refuse an adapter in memory that no later stage could lay on the base: asked before its first step is paid for.

    Every adapted module must be a layer whose weight the base's files hold as one tensor of the same shape.
    """
    faults = []
    for path, module in model.named_modules():
        name = path.removeprefix("base_model.model.")
        if not hasattr(module, "lora_A") or not (module.lora_A or module.lora_embedding_A):
            continue
        place = base.stored(f"{name}.weight")
        if place is None and base.tied and f"{name}.weight" == HEAD:
            place = base.embedding
        shape = (module.out_features, module.in_features)
        if place is None:
            faults.append(f"{name}, which its files do not hold as one tensor (a mixture's experts, or joined layers)")
        elif base.tensors[place].shape not in (shape, shape[::-1]):
            faults.append(f"{name} of {shape}, which its files hold as {base.tensors[place].shape}")
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise ModelError(
            "weights.unmergeable-layer",
            f"{base.name}: the adapter changes {faults[0]}{more}. It can be trained, but not merged or loaded on the "
            "base again. Remove that layer from `lora.target_modules`.",
        )
